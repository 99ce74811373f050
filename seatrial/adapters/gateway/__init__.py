"""The HTTP gateway: answers decisions over the network for one decision point."""
