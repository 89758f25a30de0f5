"""Tensor operations: no modules, no configuration, no training."""
