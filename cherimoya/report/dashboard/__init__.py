"""W&B's workspace and report of a project."""
