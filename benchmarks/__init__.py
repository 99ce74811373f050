"""Measurements that take minutes; nothing of the product imports them."""
