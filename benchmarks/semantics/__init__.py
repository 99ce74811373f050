"""How often a change of what a column means is found, and how often a season is taken for one."""
