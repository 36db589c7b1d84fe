"""numba's compiler with a cache, and vectors of doubles, for all kernels of the package."""
