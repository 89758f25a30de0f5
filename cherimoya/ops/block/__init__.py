"""The whole Cheri Block as one operation."""
