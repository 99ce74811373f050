from live_stack import live

__all__ = ["live"]
