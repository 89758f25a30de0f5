"""Sweeps and searches: their members, where these run, and how they are going."""
