"""The unavoidable force error on frames with features in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ase_sensitivity.plain_text import many

if TYPE_CHECKING:
    from ase_sensitivity.environments.place import Place

SHOWN = 4
"""Number of frames of a class that are named in a sentence."""


@dataclass(frozen=True)
class FrameClass:
    """Frames that have features in common, and labels or structures that differ.

    Attributes
    ----------
    frames
        The places of the frames.
    joint_force_error
        The smallest force error of a model that gives equal features equal values: root mean square
        over all force components of these frames in eV/Å.
    irreducible_force_error
        The same if each frame may have its own model.
    complete
        Whether all were bounded jointly. Frames with hundreds of atoms are not.
    """

    frames: list[Place]
    joint_force_error: float
    irreducible_force_error: float
    complete: bool = True


@dataclass(frozen=True)
class JointBound:
    """The unavoidable force error of models on the features, for a set (:ref:`fits`).

    Attributes
    ----------
    n_frames
        Number of frames with forces that were bounded.
    rms_force
        Root mean square of their force components in eV/Å.
    irreducible_force_error
        The error in eV/Å if each frame may have its own model, as in a scan.
    joint_force_error
        The error in eV/Å with one model for all frames that have features in common; at least the
        irreducible error.
    n_unbounded
        Number of frames that have features in common with others but were not bounded jointly, as
        they have hundreds of atoms.
    classes
        The classes of frames with features in common, the largest error first.
    """

    n_frames: int
    rms_force: float
    irreducible_force_error: float
    joint_force_error: float
    n_unbounded: int
    classes: list[FrameClass]

    def summary(self) -> str:
        """What was found, in words."""
        best = "No model on these features does better on these frames."
        if not self.joint_force_error:
            best = (
                "To first order, no force is out of reach of a model on these features, frame by "
                "frame and where features agree."
            )
        if self.n_unbounded:
            frames = many(self.n_unbounded, "frame")
            best += (
                " Not bounded jointly, as they have too many atoms: "
                f"{frames} with features in common."
            )
        text = (
            f"Joint force error: {self.joint_force_error:.3g} eV/Å over "
            f"{many(self.n_frames, 'frame')} with forces ({self.irreducible_force_error:.3g} eV/Å "
            f"for each by itself; the forces: {self.rms_force:.3g} eV/Å). {best}"
        )
        if self.classes and self.classes[0].joint_force_error:
            worst = self.classes[0]
            shown = ", ".join(map(str, worst.frames[:SHOWN]))
            more = ", ..." if len(worst.frames) > SHOWN else ""
            text += (
                f"\nLargest: {worst.joint_force_error:.3g} eV/Å, in "
                f"{many(len(worst.frames), 'frame')} with features in common ({shown}{more})."
            )
        return text
