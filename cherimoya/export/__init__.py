"""cherimoya-export: a model as a file that other programs read."""
