"""What a look costs: whole, after some new rows, beside SQL that was written by hand, and beside pandas."""
