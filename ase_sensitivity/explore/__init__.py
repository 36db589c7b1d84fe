"""Looking for configurations: singular ones, twins with the same features, and soft manifolds."""

from ase_sensitivity.explore.manifold import Manifold, trace_manifold
from ase_sensitivity.explore.matching import Match, best_match
from ase_sensitivity.explore.singular import SingularPoint, SingularSearch, find_singular
from ase_sensitivity.explore.twin import Twin, find_twin

__all__ = [
    "Manifold",
    "Match",
    "SingularPoint",
    "SingularSearch",
    "Twin",
    "best_match",
    "find_singular",
    "find_twin",
    "trace_manifold",
]
