"""Tells an ASE simulation where the descriptor of a machine-learned potential goes blind."""

from ase_sensitivity.analysis import analyze
from ase_sensitivity.dataset.basis.converge import converge
from ase_sensitivity.dataset.basis.result import Convergence
from ase_sensitivity.dataset.pairs.find import find_pairs
from ase_sensitivity.dataset.pairs.result import PairResult
from ase_sensitivity.dataset.result import ScanResult
from ase_sensitivity.dataset.scan import scan
from ase_sensitivity.descriptors.base import Descriptor
from ase_sensitivity.descriptors.finite_difference import FiniteDifferenceDescriptor
from ase_sensitivity.descriptors.quip.quip import QUIPDescriptor
from ase_sensitivity.descriptors.soap.soap import SOAP
from ase_sensitivity.errors import (
    ConstraintWarning,
    CostWarning,
    DescriptorWarning,
    EvaluationWarning,
    ReadingWarning,
    SensitivityWarning,
    SingularConfiguration,
    SingularWarning,
    SpeciesWarning,
)
from ase_sensitivity.geometry.matching import Match, best_match
from ase_sensitivity.jacobian.blocks import FeatureJacobian
from ase_sensitivity.jacobian.stacked import StackedJacobian
from ase_sensitivity.jacobian.strain import strain_derivative
from ase_sensitivity.jacobian.streamed import StreamedJacobian
from ase_sensitivity.md.bias import Attract, Repel
from ase_sensitivity.md.calculator import SensitivityCalculator
from ase_sensitivity.md.log import SensitivityLog, read_log
from ase_sensitivity.md.observer import SensitivityObserver
from ase_sensitivity.md.replay import replay
from ase_sensitivity.report.html import write_report
from ase_sensitivity.sensitivity import Sensitivity
from ase_sensitivity.singular.gradient import Gradient, gradient
from ase_sensitivity.singular.manifold import Manifold, trace_manifold
from ase_sensitivity.singular.nearest import NearestSingular, nearest_singular, singularity_distance
from ase_sensitivity.singular.search import SingularPoint, SingularSearch, find_singular
from ase_sensitivity.singular.size import SizeIndependent, size_independent
from ase_sensitivity.singular.twins import Twin, find_twin

__version__ = "0.1.0"
__all__ = [
    "SOAP",
    "Attract",
    "ConstraintWarning",
    "Convergence",
    "CostWarning",
    "Descriptor",
    "DescriptorWarning",
    "EvaluationWarning",
    "FeatureJacobian",
    "FiniteDifferenceDescriptor",
    "Gradient",
    "Manifold",
    "Match",
    "NearestSingular",
    "PairResult",
    "QUIPDescriptor",
    "ReadingWarning",
    "Repel",
    "ScanResult",
    "Sensitivity",
    "SensitivityCalculator",
    "SensitivityLog",
    "SensitivityObserver",
    "SensitivityWarning",
    "SingularConfiguration",
    "SingularPoint",
    "SingularSearch",
    "SingularWarning",
    "SizeIndependent",
    "SpeciesWarning",
    "StackedJacobian",
    "StreamedJacobian",
    "Twin",
    "analyze",
    "best_match",
    "converge",
    "find_pairs",
    "find_singular",
    "find_twin",
    "gradient",
    "nearest_singular",
    "read_log",
    "replay",
    "scan",
    "singularity_distance",
    "size_independent",
    "strain_derivative",
    "trace_manifold",
    "write_report",
]
