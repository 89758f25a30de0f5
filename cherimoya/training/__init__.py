"""The training run: the loop, checkpoints, evaluation and its record."""
