"""What a run records while it trains, on disk and at W&B."""
