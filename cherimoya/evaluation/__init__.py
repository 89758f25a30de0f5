"""Scores of models on prepared loci, and what to compare them with."""
