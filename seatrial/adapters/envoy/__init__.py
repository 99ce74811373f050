"""Envoy as a router: snapshots as its route configuration, its own counters as what it serves.

An agent beside Envoy writes files that Envoy watches. Neither is needed for an experiment to end: a script in Envoy
looks at the lease for every request.
"""

from seatrial.adapters.envoy.admin import Admin
from seatrial.adapters.envoy.agent import EnvoyAgent
from seatrial.adapters.envoy.bootstrap import bootstrap
from seatrial.adapters.envoy.rendering import Rendered, render
from seatrial.adapters.envoy.settings import EnvoySettings

__all__ = ["Admin", "EnvoyAgent", "EnvoySettings", "Rendered", "bootstrap", "render"]
