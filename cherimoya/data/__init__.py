"""Loci and their signal: the HDF5 file, the examples of an epoch, and where files come from."""
