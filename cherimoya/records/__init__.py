"""What the commands leave on disk, and how it is read back without torch."""
