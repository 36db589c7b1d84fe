"""numba's compiler and vectors of doubles: what every kernel of the package is written with."""
