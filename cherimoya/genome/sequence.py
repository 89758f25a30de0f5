"""The alphabet of sequences as codes."""

N_CODE = 4  # codes 0-3 are A C G T; 4 is a one-hot column of zeros
