"""Files of genomics: sequences, intervals, tracks, variants and motifs."""
