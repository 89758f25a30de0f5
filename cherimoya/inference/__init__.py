"""Finished models at work: checkpoints, ensembles, and predictions in batches."""
