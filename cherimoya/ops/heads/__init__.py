"""Both heads' first halves as one operation."""
