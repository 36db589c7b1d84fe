"""The log of a monitored run: written line by line, read back as arrays at any time."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_sensitivity.environments.comparison import Comparison
from ase_sensitivity.md.partners import LoggedPartner, logged_partners
from ase_sensitivity.sensitivity import Sensitivity

logger = logging.getLogger(__name__)

STATES = ("ok", "below", "singular", "twin", "novel", "calibrating", "failed")


NOT_COMPARED = ["nan", "-1", "nan", "nan", "nan", "nan"]
"""The columns of a reference in a line that has none."""


def check_is_log(file: object) -> None:
    """Raise ValueError if ``file`` is a path to something else than a log, which would be lost."""
    if file == "-" or not isinstance(file, str | os.PathLike) or not os.path.isfile(file):
        return
    with open(file, encoding="utf-8", errors="replace") as stream:
        words = stream.readline().split()
    if words and not words[0].startswith("#") and words[0] != "Step" and _parse(words) is None:
        raise ValueError(f"`logfile` is {str(file)!r}, which is not a log; use another name")


@dataclass(frozen=True, eq=False)
class SensitivityLog:
    """A log as arrays, one entry per call of the observer.

    Attributes
    ----------
    step
        Step of the run, of shape (n,).
    time
        In fs, of shape (n,); nan where the run has no time.
    sigma
        The k smallest non-trivial singular values, of shape (n, k); nan where there are fewer, the
        evaluation failed, or a part of the log was written with a smaller k.
    sigma_max, ratio
        The largest singular value and sigma_1 / sigma_max, of shape (n,).
    n_null
        Number of non-trivial singular values that are zero, of shape (n,); -1 for a failure.
    worst_atom
        The atom that moves most in the softest mode, of shape (n,); -1 for a failure.
    distance
        To the nearest singular configuration in Å, of shape (n,); nan where it was not looked for.
    arrival
        Time in fs until it is reached at the present velocities, of shape (n,); nan where it
        moves away or is not known.
    cause
        Of that configuration, of shape (n,); ``"-"`` where none is known.
    harmful_distance, harmful_cause
        Of the nearest configuration with another cause than symmetry or fragments, where the
        nearest one has one of these causes and another one was found: in Å, nan elsewhere, and its
        cause, ``"-"`` elsewhere; of shape (n,).
    state
        ``"ok"``, ``"below"`` (the threshold, but not long enough), ``"singular"``, ``"twin"`` or
        ``"novel"`` (by comparison with the reference, and not singular), ``"calibrating"`` or
        ``"failed"``, of shape (n,).
    novelty
        Largest distance in feature space from the reference, over the reference's spread, of shape
        (n,); nan without a reference.
    twin_frame
        Number of the frame of the reference with nearly the same features and another structure, of
        shape (n,); -1 without one. If the run's past is the reference, its step.
    twin_features
        Distance of the features of the two, relative to the larger norm, of shape (n,).
    twin_distance
        Largest distance of their matched points in Å, of shape (n,).
    twin_forces
        Spread of the reference forces on the center in eV/Å, of shape (n,); nan without labels.
    secant
        Change of the features since the call before, over the average change by a displacement of
        that length, of shape (n,); nan unless the run's past is the reference.
    partners
        With ``price``: the partners where singular states began, and their prices.
    first_error
        Step and reason of the first evaluation that failed; None without one.
    lost
        Why the log or the trajectory that :func:`replay` wrote are not complete, as on a full disk;
        None if they are.
    """

    step: NDArray[np.int64]
    time: NDArray[np.float64]
    sigma: NDArray[np.float64]
    sigma_max: NDArray[np.float64]
    ratio: NDArray[np.float64]
    n_null: NDArray[np.int64]
    worst_atom: NDArray[np.int64]
    distance: NDArray[np.float64]
    arrival: NDArray[np.float64]
    cause: NDArray[np.str_]
    harmful_distance: NDArray[np.float64]
    harmful_cause: NDArray[np.str_]
    state: NDArray[np.str_]
    novelty: NDArray[np.float64]
    twin_frame: NDArray[np.int64]
    twin_features: NDArray[np.float64]
    twin_distance: NDArray[np.float64]
    twin_forces: NDArray[np.float64]
    secant: NDArray[np.float64]
    partners: tuple[LoggedPartner, ...] = ()
    first_error: str | None = None
    lost: str | None = None

    def __repr__(self) -> str:
        return f"SensitivityLog({len(self)} calls, smallest ratio {self._smallest():.3g})"

    def _smallest(self) -> float:
        known = self.ratio[np.isfinite(self.ratio)]
        return float(known.min()) if len(known) else float("nan")

    def __len__(self) -> int:
        return len(self.step)


def columns(k: int, compared: bool = False) -> str:
    """Column names with their units; with those of a reference if frames are compared with one."""
    reference = (
        f"{'novelty':>11} {'twin_frame':>10} {'twin_features':>13} {'twin_distance[A]':>16} "
        f"{'twin_forces[eV/A]':>17} {'secant':>11} "
    )
    sigma = "".join(f" {f'sigma_{i + 1}[1/A]':>13}" for i in range(k))
    return (
        f"{'Step':>9} {'Time[fs]':>12}{sigma} {'sigma_max':>12} {'ratio':>11} "
        f"{'n_null':>6} {'worst_atom':>10} {'distance[A]':>11} {'arrival[fs]':>11} {'cause':>14} "
        f"{'harmful[A]':>11} {'harmful_cause':>14} {reference if compared else ''}state\n"
    )


def line(
    step: int,
    time: float,
    k: int,
    found: Sensitivity | None,
    state: str,
    arrival: float = float("nan"),
    reference: str = "",
) -> str:
    """One line of the log; ``found`` is None if the evaluation failed.

    ``reference`` is what :func:`reference_columns` gives.
    """
    sigma = np.full(k, np.nan)
    sigma_max, ratio, n_null, worst = np.nan, np.nan, -1, -1
    distance, cause, harmful, why = np.nan, None, np.nan, None
    if found is not None:
        sigma[: len(found.singular_values)] = found.singular_values[:k]
        sigma_max, ratio = found.sigma_max, found.ratio
        n_null, worst = found.n_null, found.worst_atom
        distance, cause = np.nan if found.distance is None else found.distance, found.approaching
        harmful = np.nan if found.harmful_distance is None else found.harmful_distance
        why = found.harmful
    values = "".join(f" {value:13.6e}" for value in sigma)
    return (
        f"{step:9d} {time:12.4f}{values} {sigma_max:12.6e} {ratio:11.5e} "
        f"{n_null:6d} {worst:10d} {distance:11.4e} {arrival:11.4e} {cause or '-':>14} "
        f"{harmful:11.4e} {why or '-':>14} {reference}{state}\n"
    )


def reference_columns(found: Comparison | None, secant: float = float("nan")) -> str:
    """The columns of a comparison with a reference; None if there is none, as at the start."""
    novelty, frame, features, distance, forces = np.nan, -1, np.nan, np.nan, np.nan
    if found is not None:
        novelty = found.novelty
        if found.twin is not None:
            twin = found.twin
            frame, features, distance = twin.frame, twin.features, twin.distance
            forces = np.nan if twin.forces is None else twin.forces
    return (
        f"{novelty:11.4e} {frame:10d} {features:13.4e} {distance:16.4e} {forces:17.4e} "
        f"{secant:11.4e} "
    )


def read_log(file: str | Path | Iterable[str]) -> SensitivityLog:
    """Read a log, also of a run that goes on or was killed in the middle of a line.

    Parameters
    ----------
    file
        A path, or the lines of a log.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it holds no line of a log and is not empty.
    """
    if isinstance(file, str | os.PathLike):
        with open(file, encoding="utf-8", errors="replace", newline="") as stream:
            lines = list(stream)
    elif isinstance(file, Iterable):
        lines = list(file)
    else:
        raise TypeError(f"`file` is {file!r} but must be a path or the lines of a log")
    rows: list[tuple[Any, ...]] = []
    skipped = 0
    remark = first_error = None
    for text in lines:
        words = text.split()
        if not words or words[0].startswith("#") or words[0] == "Step":
            remark = text
            continue
        row = _parse(words) if text.endswith("\n") else None
        if row is None:
            skipped += 1
            continue
        if words[-1] == "failed" and first_error is None and remark is not None:
            first_error = remark.removeprefix("#").strip()
        rows.append(row)
    if skipped:
        logger.info("%d incomplete or foreign lines were skipped", skipped)
    if not rows and skipped > 1:
        raise ValueError(f"{file} is not a log of SensitivityObserver")
    parts = zip(*rows, strict=True) if rows else ((),) * 19
    step, time, sigma, sigma_max, ratio, n_null, worst, *others = parts
    distance, arrival, cause, harmful, why, state, *compared = others
    novelty, twin_frame, twin_features, twin_distance, twin_forces, secant = compared
    width = max((len(values) for values in sigma), default=0)
    return SensitivityLog(
        step=np.array(step, dtype=np.int64),
        time=np.array(time, dtype=float),
        sigma=np.array(
            [values + [np.nan] * (width - len(values)) for values in sigma], dtype=float
        ).reshape(len(rows), width),
        sigma_max=np.array(sigma_max, dtype=float),
        ratio=np.array(ratio, dtype=float),
        n_null=np.array(n_null, dtype=np.int64),
        worst_atom=np.array(worst, dtype=np.int64),
        distance=np.array(distance, dtype=float),
        arrival=np.array(arrival, dtype=float),
        cause=np.array(cause, dtype=str),
        harmful_distance=np.array(harmful, dtype=float),
        harmful_cause=np.array(why, dtype=str),
        state=np.array(state, dtype=str),
        novelty=np.array(novelty, dtype=float),
        twin_frame=np.array(twin_frame, dtype=np.int64),
        twin_features=np.array(twin_features, dtype=float),
        twin_distance=np.array(twin_distance, dtype=float),
        twin_forces=np.array(twin_forces, dtype=float),
        secant=np.array(secant, dtype=float),
        partners=logged_partners(lines),
        first_error=first_error,
    )


def _parse(words: list[str]) -> tuple[Any, ...] | None:
    if len(words) < 11 or words[-1] not in STATES:
        return None
    compared = NOT_COMPARED
    if _is_number(words[-2]):  # otherwise there is a cause: no reference
        words, compared = [*words[:-7], words[-1]], words[-7:-1]
        if len(words) < 11:
            return None
    if _is_number(words[-4]):  # of an earlier version, without the two columns of what is harmful
        words = [*words[:-1], "nan", "-", words[-1]]
    try:
        return (
            int(words[0]),
            float(words[1]),
            [float(word) for word in words[2:-10]],
            float(words[-10]),
            float(words[-9]),
            int(words[-8]),
            int(words[-7]),
            float(words[-6]),
            float(words[-5]),
            words[-4],
            float(words[-3]),
            words[-2],
            words[-1],
            float(compared[0]),
            int(compared[1]),
            *map(float, compared[2:]),
        )
    except ValueError:
        return None


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
