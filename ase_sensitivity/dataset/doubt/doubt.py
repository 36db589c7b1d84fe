"""Find the reference forces that do not fit to those of the other frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from ase_sensitivity.analysis import check_descriptor_type
from ase_sensitivity.dataset.chunks import check_executor
from ase_sensitivity.dataset.doubt.copies import conflicts
from ase_sensitivity.dataset.doubt.judgement import THRESHOLD, undecided
from ase_sensitivity.dataset.doubt.residuals import Residual, model_of_forces, residuals
from ase_sensitivity.dataset.doubt.result import Doubts, ranked
from ase_sensitivity.dataset.pairs.result import Conflict
from ase_sensitivity.dataset.result import ScanResult
from ase_sensitivity.dataset.scan import scan
from ase_sensitivity.dataset.select.reading import MOST_SAMPLED
from ase_sensitivity.descriptors.base import Descriptor, descriptor_text
from ase_sensitivity.descriptors.given import Given, as_descriptor, species_in
from ase_sensitivity.environments.place import Place
from ase_sensitivity.io.reading import Frames
from ase_sensitivity.validation import as_flag, as_integer

FEWEST_FITTED = 20
"""Number of frames with forces below which none are fitted."""

TOLERANCES = {"force": 0.05, "energy": 1e-3}
"""Differences of the labels of copies that :func:`~ase_sensitivity.find_pairs` takes for conflicts,
in eV/Å and eV per atom. Their scores are relative to these."""

UNITS = {"force": "eV/Å", "energy": "eV per atom"}


class NoForces(ValueError):  # noqa: N818 (a property of the data)
    """No frame has forces."""


def doubt(
    frames: Frames | ScanResult,
    descriptor: Given,
    *,
    fit: bool = True,
    forces_key: str | None = None,
    energy_key: str | None = None,
    units: str = "eV",
    type_map: Sequence[str] | None = None,
    executor: Executor | None = None,
    store: str | Path | None = None,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
    fit_progress: Callable[[int, int], object] | None = None,
) -> Doubts:
    """Find the reference forces that do not fit to those of the other frames.

    Parameters
    ----------
    frames
        As in :func:`~ase_sensitivity.scan`; or the result of a scan with forces.
    descriptor
        As in :func:`~ase_sensitivity.scan`. The Jacobian needs ``apply`` and ``adjoint``. For the
        result of a scan, the descriptor of that scan.
    fit
        Fit forces, and look at the residuals of frames that were left out. This takes two more
        Jacobians for each frame.
    forces_key, energy_key, units, type_map, executor, store, progress
        As in :func:`~ase_sensitivity.scan`; only the executor is used with the result of a scan.
    seed
        Seed of the random features of the fit.
    fit_progress
        Called with the number of frames that were done after the scan, in two passes, and the
        number of all.

    Returns
    -------
    Doubts
        It has ``frames``, the most doubtful first, ``reasons``, and ``rows`` with all frames.

    Raises
    ------
    TypeError, ValueError
        If an argument makes no sense, no frame has forces, or the scan is of another descriptor.
    OSError, RuntimeError
        As in :func:`~ase_sensitivity.scan`.

    Notes
    -----
    A frame has a score on each of several grounds: its required slope; its net force and torque;
    the root mean square residual of the fit, and the residual on the worst atom, both relative to
    what the size of its forces lets expect. A score is the distance of the logarithm above the
    median of the frames with the same composition, over a robust standard deviation. The score of
    the frame is the largest of these; it is doubtful above
    :data:`~ase_sensitivity.dataset.doubt.judgement.THRESHOLD`. Copies with other labels are
    doubtful as well. docs/doubt tells how well planted faults are found.

    The fit is linear in random Fourier features of each center, with a ridge that is chosen by the
    residuals. It is weighted so that few wrong labels do not pull it. Frames are never in memory
    together, except 2000 of them as rows of the fit.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> from ase_sensitivity import SOAP
    >>> frames = []
    >>> for seed in range(30):
    ...     frames.append(bulk("Cu", cubic=True))
    ...     frames[-1].rattle(0.05, seed=seed)
    ...     frames[-1].calc = EMT()
    ...     _ = frames[-1].get_forces()
    >>> frames[7].calc.results["forces"][2] *= -1
    >>> doubts = doubt(frames, SOAP(["Cu"], cutoff=4, n_max=4, l_max=3))
    >>> print(doubts.frames[0])
    frames@7
    """
    as_flag("fit", fit)
    as_integer("seed", seed, 0, 2**32 - 1)
    check_executor(executor)
    if isinstance(frames, ScanResult):
        result = frames
    else:
        result = scan(
            frames,
            descriptor,
            forces_key=forces_key,
            energy_key=energy_key,
            units=units,
            type_map=type_map,
            executor=executor,
            store=store,
            k=1,
            causes=False,
            progress=progress,
        )
    numbers = [n for n, row in enumerate(result.rows) if row["rms_force"] is not None]
    if not numbers:
        if len(result) and all(row["error"] for row in result.rows):
            raise ValueError(f"no frame could be analyzed: {result.rows[0]['error']}")
        if not len(result):
            raise ValueError("`frames` has no frames")
        raise NoForces("`frames` have no forces to doubt; name them with `forces_key`")
    seen = _descriptor(descriptor, result)
    fit = fit and len(numbers) >= FEWEST_FITTED
    model = model_of_forces(seen, _sample(result, numbers), seed, fit=fit)
    found = residuals(model, result, numbers, fit=fit, executor=executor, progress=fit_progress)
    rows = [_row(result.rows[n], one) for n, one in zip(numbers, found, strict=True)]
    copies, unknown = conflicts(result, numbers, [one.average for one in found], seen)
    open_questions = undecided(rows) + ([] if unknown is None else [unknown])
    if not fit and len(numbers) < FEWEST_FITTED:
        open_questions.append(
            f"whether forces can be fitted: fewer than {FEWEST_FITTED} frames have forces"
        )
    fitted = fit and any(np.isfinite(one.rms) for one in found)
    if fit and not fitted:
        open_questions.append("whether forces can be fitted: the fit failed for all frames")
    return Doubts(
        rows=ranked(rows, _told(copies, numbers, result)),
        n_frames=len(result),
        fitted=fitted,
        undecided=open_questions,
        errors=_errors(result, dict(zip(numbers, found, strict=True))),
    )


def _descriptor(given: Given, result: ScanResult) -> Descriptor:
    """The descriptor of a scan."""
    structures = (record.atoms for record in result.records() if len(record.atoms))
    seen: Descriptor = as_descriptor(given, lambda: species_in(structures))
    check_descriptor_type(seen)
    if result.parameters["descriptor"] != descriptor_text(seen):
        raise ValueError(
            f"`descriptor` is {descriptor_text(seen)} but the scan is of "
            f"{result.parameters['descriptor']}; give the same one"
        )
    return seen


def _sample(result: ScanResult, numbers: Sequence[int]) -> list[Atoms]:
    some = np.linspace(0, len(numbers), min(len(numbers), MOST_SAMPLED), endpoint=False)
    return [result.record(numbers[place]).atoms for place in some.astype(int)]


def _row(row: dict[str, Any], found: Residual) -> dict[str, Any]:
    """What was measured of a frame."""
    known = np.isfinite(found.rms)
    return {name: row[name] for name in ("source", "index", "formula", "rms_force")} | {
        "required_slope": row["required_slope"],
        "net_force": row["net_force"],
        "net_torque": row["net_torque"],
        "residual": found.rms if known else None,
        "worst_residual": found.worst if known else None,
        "residual_atom": found.residual_atom if known else None,
    }


def _told(
    copies: Sequence[tuple[int, int, Conflict]], numbers: Sequence[int], result: ScanResult
) -> list[tuple[int, float, str]]:
    """For both frames of each conflict, place among ``numbers``, score, and what is said of it."""
    place = {number: n for n, number in enumerate(numbers)}
    told = []
    worst: dict[tuple[int, int, str], Conflict] = {}  # an environment each for every atom
    for first, second, conflict in copies:
        key = first, second, conflict.quantity
        if key not in worst or worst[key].difference < conflict.difference:
            worst[key] = conflict
    for (first, second, _), conflict in worst.items():
        score = THRESHOLD * conflict.difference / TOLERANCES[conflict.quantity]
        for own, other in ((first, second), (second, first)):
            there = result.rows[other]
            text = f"{there['source']}@{there['index']} has the same structure, and another "
            text += f"{conflict.quantity} by {conflict.difference:.3g} {UNITS[conflict.quantity]}"
            told.append((place[own], score, text))
    return told


def _errors(result: ScanResult, found: dict[int, Residual]) -> list[tuple[Place, str]]:
    errors = []
    for number, row in enumerate(result.rows):
        own = found.get(number)
        error = row["error"] or (own.error if own is not None else None)
        if error is not None:
            errors.append((Place(row["index"], None, row["source"]), error))
    return errors
