"""Pages of runs, sweeps and evaluations."""
