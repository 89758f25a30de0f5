"""The stem as one operation."""
