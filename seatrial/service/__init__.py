"""Services of the control plane over HTTP: snapshots for routers, and orders of people."""
