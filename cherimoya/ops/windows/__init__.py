"""Windows of loci, cut out of tables on the device."""
