"""Muon's quintic iteration (Jordan et al. 2024), as in torch.optim.Muon."""

A, B, C = 3.4445, -4.7750, 2.0315  # x = A x + (B g + C g g) x, with g = x x^T
EPS = 1e-7  # what the norm that x begins with is at least
