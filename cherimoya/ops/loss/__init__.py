"""The training loss as one operation."""
