"""An observer that tells an MD run or an optimization when its descriptor goes blind."""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Literal

from ase import Atoms, units
from ase.parallel import world

from ase_sensitivity.analysis import analyze, check_arguments
from ase_sensitivity.compiled.clock import without_compiling
from ase_sensitivity.descriptors.base import Descriptor, remembering
from ase_sensitivity.descriptors.given import Given, of_atoms
from ase_sensitivity.environments.comparison import Comparison
from ase_sensitivity.environments.reference_set import ReferenceSet
from ase_sensitivity.errors import (
    CostWarning,
    EvaluationWarning,
    SingularConfiguration,
    SingularWarning,
    SpeciesWarning,
)
from ase_sensitivity.io.reading import Frames
from ase_sensitivity.md.actions import Action, Actions
from ase_sensitivity.md.frames import flagged_frame, twin_frame, with_comparison
from ase_sensitivity.md.log import line, reference_columns
from ase_sensitivity.md.output import Output
from ase_sensitivity.md.pace import Pace
from ase_sensitivity.md.partners import RunPricing
from ase_sensitivity.md.reference import NOVEL, WARNINGS, Reference, reason_of
from ase_sensitivity.md.threshold import CALIBRATION, QUANTILE
from ase_sensitivity.md.trigger import Trigger
from ase_sensitivity.sensitivity import Sensitivity, pair_terms_text, unseen_text
from ase_sensitivity.singular.budget import BUDGET, EXCEEDED, Budget
from ase_sensitivity.singular.diagnosis import NOT_LOOKED_AT, Diagnosis
from ase_sensitivity.singular.monitor import WITHIN, Monitor
from ase_sensitivity.singular.nearest import NearestSingular
from ase_sensitivity.types import Scope
from ase_sensitivity.validation import as_flag, as_integer

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
    max_overhead
        The time of all calls over that of the run without them, such as 0.05, measured while it
        goes on. Calls that come too early are skipped, the first one never; the log says how many.
        Recommended for trained models. None: every call looks.
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
        default ``"warn"``, in environment scope ``"log"``. With a ``reference``, actions are also
        for ``"twin"``, a reference with nearly the same features and another structure, and, only
        if named in a dictionary, for ``"novel"``; both act at the first such call, and twins are
        recorded whenever there is a ``trajectory``. Actions are one or several of

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
    reference
        What the model was trained on, to compare with: a :class:`~ase_sensitivity.ReferenceSet`,
        the path of a saved one (.npz), or frames for one, as a list or files. Or ``"run"``: the
        run's own past, of which up to 1000 frames are kept. See :doc:`/reference_set`.
    novelty_threshold
        A configuration is novel if its novelty is above this.
    price
        An ASE calculator, not that of the run. When a singular state begins, the nearest singular
        configuration is looked for, without regard to ``budget``, and this calculator computes two
        single points: of the frame and of its :attr:`~ase_sensitivity.NearestSingular.partner`. The
        difference is in ``nearest`` and in the log (``partners`` of
        :class:`~ase_sensitivity.SensitivityLog`).
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
    comparison
        What the last call found by comparison with the reference; None without one, after a
        failure, and at the start of a run that is compared with its own past.
    halted
        Why the run was halted, or None if it was not or went on.
    error
        The last error of an evaluation, or None.
    n_calls, n_singular, n_failed
        Numbers of calls that were not skipped, of those in a singular state, and of those that
        failed.
    n_skipped
        Number of calls that were skipped because of ``max_overhead``.
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
    nearest singular configuration; if that is near, no symmetry explains it and it may be harmful,
    it walks there and looks at the cause. The result is kept as long as the softest mode and the
    neighbors stay the same.

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

    _output: Output | None = None  # for a constructor that fails before it opens files

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
        max_overhead: float | None = None,
        threshold: float | Literal["auto"] | None = None,
        calibration: int | Iterable[Atoms] = CALIBRATION,
        quantile: float = QUANTILE,
        on_singular: Actions | Mapping[str, Actions] | None = None,
        patience: int = 1,
        reference: ReferenceSet | Frames | Literal["run"] | None = None,
        novelty_threshold: float = NOVEL,
        apply_constraints: bool = False,
        price: Any = None,
        on_failure: Literal["warn", "raise"] = "warn",
        header: bool = True,
        append: bool = False,
        comm: Any = world,
    ) -> None:
        self.sensitivity: Sensitivity | None = None
        self.diagnosis: Diagnosis = NOT_LOOKED_AT
        self.comparison: Comparison | None = None
        self.halted: str | None = None
        self.error: Exception | None = None
        self.n_calls = self.n_singular = self.n_failed = 0
        self._atoms = atoms
        self.dyn: Any = _checked_dyn(dyn, self)
        if atoms is not None and not isinstance(atoms, Atoms):
            raise TypeError(f"`atoms` is {atoms!r} but must be an ase.Atoms or None")
        self._k = as_integer("k", k, 1)
        self._settings: dict[str, Any] = {
            "scope": scope,
            "center": center,
            "k": k,
            "apply_constraints": apply_constraints,
        }
        self._descriptor: Descriptor = of_atoms(descriptor, self.atoms)
        check_arguments(self.atoms, self._descriptor, scope=scope, center=center, k=k)
        if on_failure not in ("warn", "raise"):
            raise ValueError(f'`on_failure` is {on_failure!r} but must be "warn" or "raise"')
        self._on_failure = on_failure
        self._trigger = Trigger(
            scope=scope,
            threshold=threshold,
            calibration=calibration,
            quantile=quantile,
            distance_threshold=distance_threshold,
            patience=patience,
            on_singular=on_singular,
            trajectory=trajectory,
            ratio_of=lambda frame: self._analyze(frame).ratio,
            dyn=self.dyn,
            compared=reference is not None,
        )
        self._reference = Reference.of(reference, self._descriptor, novelty_threshold)
        self._monitor = self._started_monitor(as_flag("distance", distance), Budget(budget))
        self._pace = Pace(max_overhead, comm)
        if price is not None and apply_constraints:
            raise ValueError(
                "`price` is for partners with all atoms free, but `apply_constraints` is True; "
                "leave one of the two out"
            )
        self._pricing = None if price is None else RunPricing(price, self.atoms)
        self._unseen: tuple[str, ...] = ()
        self._masking: tuple[str, ...] = ()
        # Opening a file empties it: only once everything else is known to be right.
        self._output = Output(
            logfile,
            trajectory,
            header=self._header() if header else None,
            k=k,
            compared=self._reference is not None,
            append=append,
            comm=comm,
        )

    def __enter__(self) -> SensitivityObserver:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close log and trajectory, as far as they were opened here."""
        if self._output is not None:
            self._output.close()

    @property
    def lost(self) -> str | None:
        """Why log or trajectory are not complete after they were closed; None if they are."""
        return self._out.lost

    def copy_log_to(self, stream: IO[str]) -> None:
        """Write every further line of the log to ``stream`` as well, on all ranks."""
        self._out.copy_log_to(stream)

    @property
    def _out(self) -> Output:
        assert self._output is not None
        return self._output

    @property
    def n_unwritten(self) -> int:
        """How often a line or a frame could not be written at once."""
        return self._out.n_unwritten

    @property
    def n_skipped(self) -> int:
        """How many calls were skipped because of ``max_overhead``."""
        return self._pace.n_skipped

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
        return self._trigger.threshold

    def __call__(self) -> None:
        """Look at the present configuration and act on it, unless that would cost too much."""
        self.halted = None  # the run goes on
        if not self._pace.begin():
            if self._pace.n_skipped == 1:
                self._out.write_line(f"# step {int(self.dyn.nsteps)}: {self._pace}\n")
            return
        try:
            self._look()
        finally:
            self._pace.end()

    def _look(self) -> None:
        atoms, step, time = self.atoms, int(self.dyn.nsteps), self._time()
        self.n_calls += 1
        skipped = self._pace.remark()
        if skipped is not None:
            self._out.write_line(f"# step {step}: {skipped}\n")
        with remembering(self._descriptor), without_compiling() as clock:
            began = clock()
            try:
                # A copy: a descriptor that moves atoms, or calls their calculator, changes no run.
                found = self._analyze(atoms.copy(), previous=self.sensitivity)
            except Exception as error:
                self._failed(step, time, error)
                if self._on_failure == "raise":
                    raise
                self._out.warn(
                    "the sensitivity could not be evaluated: "
                    "see the log, or `error` of the observer",
                    EvaluationWarning,
                )
                return
            self._remark(step, found)
            found = self._diagnosed(step, atoms, found, clock() - began)
        self.sensitivity = found
        kinds = self._compared(step, atoms)
        state = self._trigger.state(found, self.diagnosis)
        shown = kinds[0] if kinds and state in ("ok", "below") else state
        arrival = float("nan")
        if self.diagnosis.slope is not None:
            arrival = self.diagnosis.arrival(atoms.get_velocities())
        self._out.write_line(line(step, time, self._k, found, shown, arrival, self._columns()))
        if state == "calibrating":
            remark = self._trigger.calibrate(found.ratio)
            if remark is not None:
                self._out.write_line(f"# {remark}\n")
        if state == "singular":
            self.n_singular += 1
            self._price(atoms, found, step)
            self._out.record(lambda: flagged_frame(atoms, found, step, time))
            self._act(atoms, found, step)
        elif self._pricing is not None:
            self._pricing.leave()
        for kind in kinds:
            self._act_on_kind(kind, atoms, found, step, time)

    def _compared(self, step: int, atoms: Atoms) -> list[str]:
        """Compare the structure with the reference; what that found, "twin" first."""
        self.comparison = None
        if self._reference is None:
            return []
        try:
            self.comparison = self._reference.compare(atoms.copy(), step)
        except Exception as error:  # singular values are there all the same
            self.error = error
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            self._out.write_line(f"# step {step}: not compared with the reference: {reason}\n")
            self._out.warn(
                "a configuration could not be compared with the reference: "
                "see the log, or `error` of the observer",
                EvaluationWarning,
            )
        kinds = self._reference.kinds(self.comparison)
        self._trigger.compared(kinds)
        return kinds

    def _columns(self, failed: bool = False) -> str:
        """The columns of the reference, if there is one."""
        if self._reference is None:
            return ""
        if failed:
            return reference_columns(None)
        return reference_columns(self.comparison, self._reference.secant)

    def _act_on_kind(
        self, kind: str, atoms: Atoms, found: Sensitivity, step: int, time: float
    ) -> None:
        """Record, and take the actions for a twin or for novelty."""
        comparison = self.comparison
        assert comparison is not None
        actions = self._trigger.actions_of_kind(kind)
        if kind == "twin" or "record" in actions:
            flagged = with_comparison(flagged_frame(atoms, found, step, time), comparison)
            self._out.record(lambda: flagged)
            twin = comparison.twin if kind == "twin" else None
            if twin is not None:
                self._out.record(lambda: twin_frame(twin, flagged))
        reason = f"step {step}: {reason_of(kind, comparison)}"
        logger.info(reason)
        self._take(
            actions, reason, WARNINGS[kind], lambda: self._trigger.stops_for(kind), atoms, found
        )

    def _analyze(self, atoms: Atoms, previous: Sensitivity | None = None) -> Sensitivity:
        return analyze(atoms, self._descriptor, previous=previous, each=False, **self._settings)

    def _diagnosed(
        self, step: int, atoms: Atoms, found: Sensitivity, seconds: float
    ) -> Sensitivity:
        """The result with distance and cause, as far as there is a reason to look for them."""
        before, self.diagnosis = self.diagnosis, NOT_LOOKED_AT
        if self._monitor is None:
            return found
        try:
            self.diagnosis = self._monitor.diagnose(atoms, found, seconds)
        except Exception as error:  # singular values are there all the same
            if str(error) != str(self.error):
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                self._out.write_line(f"# step {step}: not looked for: {reason}\n")
            self.error = error
            logger.info("no distance could be found: %s: %s", type(error).__name__, error)
            self._out.warn(
                "the distance to a singular configuration could not be found: "
                "see `error` of the observer",
                EvaluationWarning,
            )
        known = self.diagnosis
        if known.how == "skipped":
            if before.how != "skipped":
                self._out.write_line(f"# step {step}: not looked for: {self._monitor.budget}\n")
            self._out.warn(EXCEEDED, CostWarning)
        if math.isnan(known.distance):
            return found
        harmful = None if known.harmful_cause is None else known.harmful_distance
        return replace(
            found,
            distance=known.distance,
            approaching=known.cause,
            harmful_distance=harmful,
            harmful=known.harmful_cause,
        )

    @property
    def nearest(self) -> NearestSingular | None:
        """With ``price``: the nearest singular configuration where the last singular state began.

        It has the partner and the price; None before.
        """
        return None if self._pricing is None else self._pricing.nearest

    def _price(self, atoms: Atoms, found: Sensitivity, step: int) -> None:
        """Where a singular state begins: what it costs to confuse the frame and its partner."""
        if self._pricing is None:
            return
        scope = self._settings["scope"]
        center = None if scope == "structure" else found.center
        text = self._pricing.enter(atoms.copy(), self._descriptor, scope, center, step)
        self._out.write_line(text)
        if self._pricing.failed:
            self._out.warn(
                "there is no price of a partner: see the log, or `nearest` of the observer",
                EvaluationWarning,
            )

    def _remark(self, step: int, found: Sensitivity) -> None:
        """Say in the log what the numbers cannot: pair terms, and elements that are not known."""
        if found.masking and found.masking != self._masking:
            self._out.write_line(f"# {pair_terms_text(found.masking)}\n")
        self._masking = found.masking or self._masking
        unseen = found.unseen
        if unseen and unseen != self._unseen:
            self._out.write_line(f"# step {step}: {unseen_text(unseen)}\n")
            self._out.warn(
                "elements are not among the species of the descriptor: "
                "see the log, or `sensitivity` of the observer",
                SpeciesWarning,
            )
        self._unseen = unseen

    def _time(self) -> float:
        """Time in fs; nan for what has none, such as an optimizer."""
        get_time = getattr(self.dyn, "get_time", None)
        return float("nan") if get_time is None else get_time() / units.fs

    def _act(self, atoms: Atoms, found: Sensitivity, step: int) -> None:
        reason = f"step {step}: {self._trigger.reason(found, self.diagnosis)}"
        logger.info(reason)
        actions = self._trigger.actions(self._trigger.cause(self.diagnosis))
        warning = (
            "the run is near a singular configuration of its descriptor: "
            "see the log, or `sensitivity` of the observer"
        )
        self._take(actions, reason, warning, self._trigger.stops, atoms, found)

    def _take(
        self,
        actions: Sequence[Action],
        reason: str,
        warning: str,
        stops: Callable[[], bool],
        atoms: Atoms,
        found: Sensitivity,
    ) -> None:
        """Take actions, except to record."""
        step = int(self.dyn.nsteps)
        if "warn" in actions:
            self._out.warn(warning, SingularWarning)
        for action in actions:
            if callable(action):
                action(found, atoms, step)
        if not {"raise", "halt"}.intersection(actions) or not stops():
            return
        if "raise" in actions:
            raise SingularConfiguration(reason, found, atoms.copy(), step)
        self.halted = reason
        self.dyn.max_steps = self.dyn.nsteps

    def _failed(self, step: int, time: float, error: Exception) -> None:
        self.n_failed += 1
        self.error = error
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        # Once aloud: where logging is not set up, Python prints warnings to the terminal.
        level = logging.WARNING if self.n_failed == 1 else logging.INFO
        logger.log(level, "step %d: the evaluation failed: %s", step, reason)
        text = line(step, time, self._k, None, "failed", reference=self._columns(failed=True))
        self._out.write_line(f"# step {step}: {reason}\n{text}")

    def _header(self) -> str:
        settings = ", ".join(f"{name}={value}" for name, value in self._settings.items())
        described = " ".join(repr(self._descriptor).split())
        pace = self._pace.max_overhead
        overhead = "" if pace is None else f", max_overhead={pace:g}"
        compared = "" if self._reference is None else f"# compared with {self._reference}\n"
        return f"# {described}\n# {settings}, {self._trigger}{overhead}\n{compared}"

    def _started_monitor(self, always: bool, budget: Budget) -> Monitor | None:
        """What looks for distance and cause, if somebody asks for these."""
        within = self._trigger.within
        if not always and (within is None or not self._trigger.by_cause):
            return None
        return Monitor(
            self._descriptor,
            scope=self._settings["scope"],
            within=within or WITHIN,
            always=always,
            apply_constraints=self._settings["apply_constraints"],
            budget=budget,
        )

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
