"""Files, progress, optional packages: what any room needs and no subject owns."""
