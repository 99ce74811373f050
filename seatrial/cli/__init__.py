"""The command line: arguments in, a use case called, rows or JSON out. Only here is anything printed."""

from seatrial.cli.app import main

__all__ = ["main"]
