"""Why a singular value is zero: fragments, symmetry, incompleteness or truncation."""
