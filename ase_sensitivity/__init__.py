"""Tells an ASE simulation where the descriptor of a machine-learned potential goes blind."""

from ase_sensitivity.analysis import analyze
from ase_sensitivity.approach.gradient import Gradient, gradient
from ase_sensitivity.approach.nearest import (
    NearestSingular,
    nearest_singular,
    singularity_distance,
)
from ase_sensitivity.descriptors.base import (
    Descriptor,
    FeatureJacobian,
    StackedJacobian,
    StreamedJacobian,
)
from ase_sensitivity.descriptors.finite_difference import FiniteDifferenceDescriptor
from ase_sensitivity.descriptors.quip import QUIPDescriptor
from ase_sensitivity.descriptors.soap.soap import SOAP
from ase_sensitivity.descriptors.strain import strain_derivative
from ase_sensitivity.dynamics.log import SensitivityLog, read_log
from ase_sensitivity.dynamics.observer import SensitivityObserver
from ase_sensitivity.dynamics.replay import replay
from ase_sensitivity.notices import (
    ConstraintWarning,
    CostWarning,
    EvaluationWarning,
    SensitivityWarning,
    SingularConfiguration,
    SingularWarning,
)
from ase_sensitivity.sensitivity import Sensitivity
from ase_sensitivity.size import SizeIndependent, size_independent

__version__ = "0.1.0"
__all__ = [
    "SOAP",
    "ConstraintWarning",
    "CostWarning",
    "Descriptor",
    "EvaluationWarning",
    "FeatureJacobian",
    "FiniteDifferenceDescriptor",
    "Gradient",
    "NearestSingular",
    "QUIPDescriptor",
    "Sensitivity",
    "SensitivityLog",
    "SensitivityObserver",
    "SensitivityWarning",
    "SingularConfiguration",
    "SingularWarning",
    "SizeIndependent",
    "StackedJacobian",
    "StreamedJacobian",
    "analyze",
    "gradient",
    "nearest_singular",
    "read_log",
    "replay",
    "singularity_distance",
    "size_independent",
    "strain_derivative",
]
