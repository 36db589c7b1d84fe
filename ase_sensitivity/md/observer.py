"""An observer that tells an MD run or an optimization when its descriptor goes blind."""

from __future__ import annotations

import logging
import math
import os
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Literal

from ase import Atoms, units
from ase.parallel import world

from ase_sensitivity.analysis import analyze, check_arguments
from ase_sensitivity.causes.cause import CAUSES, SPURIOUS
from ase_sensitivity.descriptors.base import Descriptor
from ase_sensitivity.descriptors.given import Given, of_atoms
from ase_sensitivity.errors import (
    CostWarning,
    EvaluationWarning,
    SingularConfiguration,
    SingularWarning,
    SpeciesWarning,
    warn,
)
from ase_sensitivity.io.line_file import LineFile, check_file, locked
from ase_sensitivity.md.actions import Action, Actions, actions_by_cause, check_can_halt
from ase_sensitivity.md.frames import FrameFile, check_is_flagged, check_path, flagged_frame
from ase_sensitivity.md.log import check_is_log, columns, line
from ase_sensitivity.md.threshold import CALIBRATION, QUANTILE, Threshold
from ase_sensitivity.sensitivity import Sensitivity, not_among, said_of_pairs
from ase_sensitivity.singular.budget import BUDGET, EXCEEDED, Budget
from ase_sensitivity.singular.diagnosis import NOT_LOOKED_AT, Diagnosis
from ase_sensitivity.singular.monitor import WITHIN, Monitor
from ase_sensitivity.types import Scope
from ase_sensitivity.validation import as_flag, as_integer, is_number

logger = logging.getLogger(__name__)


class SensitivityObserver:
    """Follows the smallest singular values of a descriptor's Jacobian along a run.

    Attach it to anything that takes ASE observers: ``dyn.attach(observer, interval=10)``. It reads
    the atoms' positions and nothing else: no force call, and the run is bit for bit the same.

    Parameters
    ----------
    dyn
        The dynamics or optimizer, of which a weak reference is kept.
    descriptor
        What the potential sees; see :class:`~ase_sensitivity.Descriptor`. By default that of the
        calculator, if it is known (:func:`~ase_sensitivity.descriptor_of`).
    atoms
        The atoms to look at, if not those of ``dyn``: one image of a NEB.
    logfile
        Path, ``"-"`` for the standard output, or open file for one line per call; see
        :func:`read_log`.
    trajectory
        Path (.xyz, .extxyz or .traj) for flagged frames with their softest mode; implies
        ``"record"``.
    scope, center, apply_constraints
        As in :func:`~ase_sensitivity.analyze`.
    k
        Number of singular values to log. With fewer than 3, an estimate of the distance has to find
        its modes by a Jacobian of its own.
    distance_threshold
        A frame is *below* if a singular configuration that matters is nearer than this, in Å
        (the square root of the sum of all squared displacements). None: no distance matters.
    distance
        Estimate the distance at every call, not only when the ratio is suspiciously small.
    budget
        Seconds that one call may look for distance and cause, beyond the analysis itself; None for
        no limit. What would take longer, by the time that a Jacobian takes, is skipped: the log
        says so, and a :class:`~ase_sensitivity.CostWarning` once.
    threshold
        A frame is *below* if sigma_min / sigma_max is less than this, whatever the cause and the
        distance. ``"auto"`` takes a quantile of the ratios of a calibration. None: no ratio
        matters.
    calibration
        For ``threshold="auto"``: the number of first calls to calibrate on, or frames.
    quantile
        Which quantile (linear interpolation) of the calibration's ratios becomes the threshold, but
        at least 1e-10, below which a singular value counts as zero. Expect this fraction of the
        frames of an unchanged run to be below it.
    on_singular
        What to do in a *singular* state, that is below for ``patience`` calls in a row. Either a
        dictionary that names actions for some of the causes "incompleteness", "truncation",
        "unknown" (of a descriptor without body order), "species" (elements that the descriptor does
        not know), "symmetry", "near-symmetric" and "fragment", as
        ``{"incompleteness": "halt", "symmetry": "log"}``, and no other cause matters. Or actions
        for the first four, which no physics asks for; with ``threshold`` for all causes. By
        default ``"warn"``, in environment scope ``"log"``. Actions are one or several of

        - ``"log"``: nothing but the word in the log, which is there in any case;
        - ``"warn"``: a :class:`~ase_sensitivity.SingularWarning`, once;
        - ``"record"``: write the frame to ``trajectory``, at every such call;
        - ``"halt"``: let ``dyn.run()`` return; ``halted`` tells why, and a later run goes on;
        - ``"raise"``: raise :class:`~ase_sensitivity.SingularConfiguration`;
        - a function, called as ``function(sensitivity, atoms, step)`` at every such call.

        ``"halt"`` and ``"raise"`` act once and again after the ratio was above the threshold.
    patience
        Number of consecutive calls below the threshold that make a singular state. A call that
        fails neither counts nor starts the count anew.
    on_failure
        An evaluation that fails is logged and counted. ``"warn"``: the run goes on, with one
        :class:`~ase_sensitivity.EvaluationWarning`. ``"raise"``: its error is raised.
    header, append
        Whether to write the log's header, and to keep what log and trajectory hold. Otherwise
        those of an earlier run are replaced; files of anything else are refused.
    comm
        MPI communicator; rank 0 writes.

    Attributes
    ----------
    sensitivity
        Result of the last successful call, or None.
    diagnosis
        What is known of the nearest singular configuration after the last call.
    halted
        Why the run was halted, or None if it was not or went on.
    error
        The last error of an evaluation, or None.
    n_calls, n_singular, n_failed
        Numbers of calls, of those in a singular state, and of those that failed.
    n_unwritten
        How often a line or a frame could not be written at once, as on a full disk. Both are
        kept and written as soon as that is possible.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of place.
    OSError
        If a file cannot be opened, or another observer writes to it: of this process (a notebook
        cell that was run again) or of another one.
    SingularConfiguration
        Out of the run, if asked for.

    Notes
    -----
    See :doc:`/approach`. A small ratio alone means little: every symmetric configuration has zeros
    that are right and harmless. Below a ratio of 0.1 the observer estimates the distance to the
    nearest singular configuration; if that is near and no symmetry explains it, it walks there and
    looks at the cause. The result is kept as long as the softest mode and the neighbors stay the
    same.

    Examples
    --------
    >>> from ase.build import molecule
    >>> from ase_sensitivity import QUIPDescriptor
    >>> from ase.calculators.emt import EMT
    >>> from ase.optimize import BFGS
    >>> atoms = molecule("CH4")
    >>> atoms.rattle(0.1, seed=1)
    >>> atoms.calc = EMT()
    >>> optimizer = BFGS(atoms, logfile=None)
    >>> soap = QUIPDescriptor("soap cutoff=4 n_max=6 l_max=4 atom_sigma=0.5", species=["C", "H"])
    >>> observer = SensitivityObserver(optimizer, soap, on_singular="log")
    >>> optimizer.attach(observer, interval=2)
    >>> _ = optimizer.run(steps=4)
    >>> observer.n_calls
    3
    """

    # For a constructor that fails before it opens them.
    _log: LineFile | None = None
    _frames: FrameFile | None = None

    def __init__(
        self,
        dyn: Any,
        descriptor: Given | None = None,
        *,
        atoms: Atoms | None = None,
        logfile: str | Path | IO[str] | None = None,
        trajectory: str | Path | None = None,
        scope: Scope = "structure",
        center: int | None = None,
        k: int = 3,
        distance_threshold: float | None = WITHIN,
        distance: bool = False,
        budget: float | None = BUDGET,
        threshold: float | Literal["auto"] | None = None,
        calibration: int | Iterable[Atoms] = CALIBRATION,
        quantile: float = QUANTILE,
        on_singular: Actions | Mapping[str, Actions] | None = None,
        patience: int = 1,
        apply_constraints: bool = False,
        on_failure: Literal["warn", "raise"] = "warn",
        header: bool = True,
        append: bool = False,
        comm: Any = world,
    ) -> None:
        self.sensitivity: Sensitivity | None = None
        self.diagnosis: Diagnosis = NOT_LOOKED_AT
        self.halted: str | None = None
        self.error: Exception | None = None
        self.n_calls = self.n_singular = self.n_failed = self.n_unwritten = 0
        self._atoms = atoms
        self.dyn: Any = _checked_dyn(dyn, self)
        self._settings: dict[str, Any] = {
            "scope": scope,
            "center": center,
            "k": k,
            "apply_constraints": apply_constraints,
        }
        if atoms is not None and not isinstance(atoms, Atoms):
            raise TypeError(f"`atoms` is {atoms!r} but must be an ase.Atoms or None")
        self._k = as_integer("k", k, 1)
        self._descriptor: Descriptor = of_atoms(descriptor, self.atoms)
        check_arguments(self.atoms, self._descriptor, scope=scope, center=center, k=k)
        self._patience = as_integer("patience", patience, 1)
        if on_singular is None:
            on_singular = "log" if scope == "environment" else "warn"
        matter = SPURIOUS if threshold is None else tuple(CAUSES)
        self._actions = actions_by_cause(on_singular, matter, trajectory)
        if any("halt" in actions for actions in self._actions.values()):
            check_can_halt(self.dyn)
        if on_failure not in ("warn", "raise"):
            raise ValueError(f'`on_failure` is {on_failure!r} but must be "warn" or "raise"')
        self._on_failure = on_failure
        self._below = 0
        self._stopped = False
        self._warned: set[str] = set()
        self._unseen: tuple[str, ...] = ()
        self._masking: tuple[str, ...] = ()
        self._threshold = Threshold(threshold, calibration, quantile, self._ratio)
        by_cause = threshold is None or isinstance(on_singular, Mapping)
        self._watch = self._start_watch(
            distance_threshold, by_cause, as_flag("distance", distance), Budget(budget)
        )
        # Opening a file empties it: only once everything else is known to be right.
        _check_files(logfile, trajectory, comm)
        self._log = LineFile(logfile, append, comm)
        if trajectory is not None:
            self._frames = FrameFile(trajectory, append, comm)
        if header:
            self._write_line(self._header() + (columns(k) if self._log.empty else ""))

    def __enter__(self) -> SensitivityObserver:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close log and trajectory, as far as they were opened here."""
        for file in (self._log, self._frames):
            if file is not None:
                file.close()

    def copy_log_to(self, stream: IO[str]) -> None:
        """Write every further line of the log to ``stream`` as well, on all ranks."""
        assert self._log is not None
        self._log.copy = stream

    @property
    def atoms(self) -> Atoms:
        """The atoms that are looked at."""
        if self._atoms is not None:
            return self._atoms
        atoms = self.dyn.atoms
        while not isinstance(atoms, Atoms):
            if not hasattr(atoms, "atoms"):
                raise ValueError(
                    f"`dyn` moves a {type(atoms).__name__}, not one structure; "
                    "say with `atoms` which image to look at, with one observer for each"
                )
            atoms = atoms.atoms  # a filter
        return atoms

    @property
    def threshold(self) -> float | None:
        """The ratio below which a frame is below; None if there is none, or not yet."""
        return self._threshold.value

    def __call__(self) -> None:
        """Look at the present configuration and act on it."""
        atoms, step, time = self.atoms, int(self.dyn.nsteps), self._time()
        self.n_calls += 1
        self.halted = None  # the run goes on
        try:
            # A copy: a descriptor that moves atoms, or calls their calculator, changes no run.
            found = analyze(
                atoms.copy(),
                self._descriptor,
                previous=self.sensitivity,
                each=False,
                **self._settings,
            )
        except Exception as error:
            self._failed(step, time, error)
            if self._on_failure == "raise":
                raise
            self._warn(
                "the sensitivity could not be evaluated: see the log, or `error` of the observer",
                EvaluationWarning,
            )
            return
        self._remark(step, found)
        found = self._diagnosed(step, atoms, found)
        self.sensitivity = found
        state = self._state(found)
        arrival = float("nan")
        if self.diagnosis.slope is not None:
            arrival = self.diagnosis.arrival(atoms.get_velocities())
        self._write_line(line(step, time, self._k, found, state, arrival))
        if state == "calibrating":
            self._calibrate(found.ratio)
        if state == "singular":
            self.n_singular += 1
            self._act(atoms, found, step, time)

    def _diagnosed(self, step: int, atoms: Atoms, found: Sensitivity) -> Sensitivity:
        """The result with distance and cause, as far as there is a reason to look for them."""
        before, self.diagnosis = self.diagnosis, NOT_LOOKED_AT
        if self._watch is None:
            return found
        try:
            self.diagnosis = self._watch.diagnose(atoms, found)
        except Exception as error:  # singular values are there all the same
            self.error = error
            logger.info("no distance could be found: %s: %s", type(error).__name__, error)
            self._warn(
                "the distance to a singular configuration could not be found: "
                "see `error` of the observer",
                EvaluationWarning,
            )
        known = self.diagnosis
        if known.how == "skipped":
            if before.how != "skipped":
                self._write_line(f"# step {step}: not looked for: {self._watch.budget}\n")
            self._warn(EXCEEDED, CostWarning)
        if math.isnan(known.distance):
            return found
        return replace(found, distance=known.distance, approaching=known.cause)

    def _remark(self, step: int, found: Sensitivity) -> None:
        """Say in the log what the numbers cannot: pair terms, and elements that are not known."""
        if found.masking and found.masking != self._masking:
            self._write_line(f"# {said_of_pairs(found.masking)}\n")
        self._masking = found.masking or self._masking
        unseen = found.unseen
        if unseen and unseen != self._unseen:
            self._write_line(f"# step {step}: {not_among(unseen)}\n")
            self._warn(
                "elements are not among the species of the descriptor: "
                "see the log, or `sensitivity` of the observer",
                SpeciesWarning,
            )
        self._unseen = unseen

    def _time(self) -> float:
        """Time in fs; nan for what has none, such as an optimizer."""
        get_time = getattr(self.dyn, "get_time", None)
        return float("nan") if get_time is None else get_time() / units.fs

    def _state(self, found: Sensitivity) -> str:
        if self._threshold.calibrating:
            return "calibrating"
        if not self._is_below(found):
            self._below, self._stopped = 0, False
            return "ok"
        self._below += 1
        return "singular" if self._below >= self._patience else "below"

    def _is_below(self, found: Sensitivity) -> bool:
        if self.threshold is not None:
            return found.ratio < self.threshold
        return self._within is not None and self.diagnosis.matters(self._within, self._actions)

    def _actions_now(self, found: Sensitivity) -> tuple[Action, ...]:
        """Those for the cause; all there are if no cause is looked at."""
        if found.approaching is None and self._by_cause:
            return ()
        return self._actions.get(found.approaching or SPURIOUS[0], ())

    def _calibrate(self, ratio: float) -> None:
        if self._threshold.learn(ratio):
            calls = f"the first {self._threshold.n_calls} calls"
            self._write_line(f"# threshold={self.threshold:.6e} from {calls}\n")

    def _act(self, atoms: Atoms, found: Sensitivity, step: int, time: float) -> None:
        if self._frames is not None:
            frames = self._frames
            self._write(lambda: frames.write(flagged_frame(atoms, found, step, time)))
        what = f"sigma_min / sigma_max = {found.ratio:.3e}"
        if self.threshold is not None:
            what += f" is below {self.threshold:.3e}"
        if found.approaching is not None:
            what += f", {found.approaching} at {found.distance:.4f} Å"
        reason = (
            f"step {step}: {what} ({self._below} consecutive calls), "
            f"atom {found.worst_atom} moves most"
        )
        logger.info(reason)
        actions = self._actions_now(found)
        if "warn" in actions:
            self._warn(
                "the run is near a singular configuration of its descriptor: "
                "see the log, or `sensitivity` of the observer",
                SingularWarning,
            )
        for action in actions:
            if callable(action):
                action(found, atoms, step)
        if self._stopped:
            return
        if "raise" in actions:
            self._stopped = True
            raise SingularConfiguration(reason, found, atoms.copy(), step)
        if "halt" in actions:
            self._stopped = True
            self.halted = reason
            self.dyn.max_steps = self.dyn.nsteps

    def _failed(self, step: int, time: float, error: Exception) -> None:
        self.n_failed += 1
        self.error = error
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        # Once aloud: where logging is not set up, Python prints warnings to the terminal.
        level = logging.WARNING if self.n_failed == 1 else logging.INFO
        logger.log(level, "step %d: the evaluation failed: %s", step, reason)
        text = line(step, time, self._k, None, "failed")
        self._write_line(f"# step {step}: {reason}\n{text}")

    def _write_line(self, text: str) -> None:
        log = self._log
        assert log is not None
        self._write(lambda: log.write(text))

    def _write(self, write: Callable[[], None]) -> None:
        """Write, and go on if that fails: the run is worth more than its log."""
        try:
            write()
        except Exception as error:
            self.n_unwritten += 1
            level = logging.ERROR if self.n_unwritten == 1 else logging.INFO
            logger.log(level, "a result could not be written: %s", error)
            self._warn("a result of the observer could not be written", EvaluationWarning)

    def _warn(self, message: str, category: type[Warning]) -> None:
        """Warn once.

        Python's own memory of what it has shown does not survive `warnings.catch_warnings`, which
        a calculator may use at every step.
        """
        if message not in self._warned:
            self._warned.add(message)
            warn(message, category)

    def _header(self) -> str:
        settings = ", ".join(f"{name}={value}" for name, value in self._settings.items())
        described = " ".join(repr(self._descriptor).split())
        threshold = "auto" if self._threshold.n_calls else self.threshold
        limits = f"threshold={threshold}, distance_threshold={self._within}"
        return f"# {described}\n# {settings}, {limits}\n"

    def _start_watch(
        self, within: float | None, by_cause: bool, always: bool, budget: Budget
    ) -> Monitor | None:
        if within is not None and (not is_number(within) or not 0 < within < math.inf):
            raise ValueError(
                f"`distance_threshold` is {within!r} but must be a positive number or None"
            )
        self._within = within
        self._by_cause = by_cause
        if not always and (within is None or not by_cause):
            return None
        return Monitor(
            self._descriptor,
            scope=self._settings["scope"],
            within=within or WITHIN,
            always=always,
            apply_constraints=self._settings["apply_constraints"],
            budget=budget,
        )

    def _ratio(self, frame: Atoms) -> float:
        return analyze(frame, self._descriptor, each=False, **self._settings).ratio

    def __repr__(self) -> str:
        return f"SensitivityObserver({self.n_calls} calls, {self.n_singular} singular)"


def _checked_dyn(dyn: Any, observer: SensitivityObserver) -> Any:
    """A weak reference to what looks like a dynamics; its end is that of the observer's files."""
    if not hasattr(dyn, "nsteps") or not hasattr(dyn, "atoms"):
        raise TypeError(f"`dyn` is {dyn!r} but must be a dynamics or an optimizer of ASE")
    if isinstance(dyn, weakref.ProxyTypes):
        return dyn
    known = weakref.ref(observer)

    def close(_: object) -> None:
        over = known()
        if over is not None:
            over.close()

    return weakref.proxy(dyn, close)


def _check_files(logfile: object, trajectory: Any, comm: object) -> None:
    check_file(logfile)
    if trajectory is not None:
        check_path(trajectory)
        if isinstance(logfile, str | os.PathLike) and _same(logfile, trajectory):
            raise ValueError(f"`logfile` and `trajectory` are both {str(logfile)!r}")
    for file in (logfile, trajectory):  # neither is emptied if the other one is in use
        if isinstance(file, str | os.PathLike) and file != "-" and os.path.isfile(file):
            os.close(locked(file))
    check_is_log(logfile)
    if trajectory is not None:
        check_is_flagged(trajectory)
    if not hasattr(comm, "rank"):
        raise TypeError(f"`comm` is {comm!r} but must be an MPI communicator such as ASE's `world`")


def _same(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
