"""Around training and after it: a run from start to end, and what asks finished models."""
