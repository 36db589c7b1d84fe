"""How large a basis has to be for a data set."""
