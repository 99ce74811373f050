"""The example: which flights out of New York will be late, and what to do about them."""
