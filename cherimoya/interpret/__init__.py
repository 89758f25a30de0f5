"""Which bases matter: attributions, motifs and variants."""
