"""Which parameter goes to which optimizer, Muon, and the learning-rate schedule."""
