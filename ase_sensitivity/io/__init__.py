"""Reading structures, energies and forces, and writing files line by line."""
