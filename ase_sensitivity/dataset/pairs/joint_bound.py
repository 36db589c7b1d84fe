"""The force error that no model avoids on frames with features in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ase_sensitivity.plain_text import many

if TYPE_CHECKING:
    from ase_sensitivity.dataset.pairs.result import Place

SHOWN = 4
"""Frames of a class that a sentence names."""


@dataclass(frozen=True)
class FrameClass:
    """Frames that have features in common, and labels or structures that differ.

    Attributes
    ----------
    frames
        Where they are.
    joint_force_error
        The force error that no model avoids which is the same where features agree: root mean
        square over all force components of these frames in eV/Å.
    irreducible_force_error
        The same for models that may differ from frame to frame.
    complete
        Whether all were bounded jointly. Frames with hundreds of atoms are not.
    """

    frames: list[Place]
    joint_force_error: float
    irreducible_force_error: float
    complete: bool = True


@dataclass(frozen=True)
class JointBound:
    """The force error of a set that no model on the features avoids (:ref:`fits`).

    Attributes
    ----------
    n_frames
        Frames with forces that were bounded.
    rms_force
        Root mean square of their force components in eV/Å.
    irreducible_force_error
        That of the frames each by itself, as in a scan, in eV/Å.
    joint_force_error
        With one model for all frames that have features in common, in eV/Å; at least the former.
    n_unbounded
        Frames that have features in common with others and were not bounded jointly, as they have
        hundreds of atoms.
    classes
        These frames, the largest error first.
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
