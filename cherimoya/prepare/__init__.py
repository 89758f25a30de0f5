"""cherimoya-prepare: genome, tracks and loci become the HDF5 file of a training."""
