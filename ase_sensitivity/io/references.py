"""Reference energies and forces of frames, in eV and eV/Å, under any name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.singlepoint import SinglePointCalculator
from numpy.typing import NDArray

from ase_sensitivity.io.reading import MEMORY, Frame
from ase_sensitivity.plain_text import reason
from ase_sensitivity.types import Floats

ENERGIES = {
    "ev": 1.0,
    "mev": 1e-3,
    "kcal/mol": units.kcal / units.mol,
    "kj/mol": units.kJ / units.mol,
    "ha": units.Hartree,
    "hartree": units.Hartree,
    "ry": units.Rydberg,
}

LENGTHS = {"å": 1.0, "a": 1.0, "ang": 1.0, "angstrom": 1.0, "nm": units.nm, "bohr": units.Bohr}


FORCES = re.compile(r"forces?\b|forces?_|^f$|^grad", re.IGNORECASE)
"""Pattern for names of arrays that have forces, or their negatives."""

LOOKED_AT = 100
"""If none of this many first frames has a key, the key is taken to be misspelled."""


@dataclass(frozen=True, eq=False)
class Task:
    """A frame with its reference values.

    Attributes
    ----------
    source, index
        Where the frame is from, as in :class:`Frame`.
    atoms
        The structure, without atoms if it could not be read.
    energy
        In eV, or None.
    forces
        In eV/Å of shape (n_atoms, 3), or None.
    error
        What is wrong with the frame, or None.
    """

    source: str
    index: int
    atoms: Atoms
    energy: float | None = None
    forces: Floats | None = None
    error: str | None = None


class MissingReference(ValueError):  # noqa: N818 (a property of the data)
    """A frame lacks the energy or the forces that were asked for."""


def unit_factors(text: str) -> tuple[float, float]:
    """Factors that convert energies to eV and forces to eV/Å.

    Parameters
    ----------
    text
        Unit of the energies, "eV", "meV", "kcal/mol", "kJ/mol", "Ha" or "Ry", when lengths are in
        Å; or of the forces, such as "Ha/Bohr" or "kJ/mol/nm".

    Raises
    ------
    ValueError
        If it is something else.
    """
    energy, length = str(text).strip().lower(), "å"
    if energy not in ENERGIES and "/" in energy:
        energy, length = energy.rsplit("/", 1)
    if energy not in ENERGIES or length not in LENGTHS:
        raise ValueError(
            f"`units` is {text!r} but must be eV, meV, kcal/mol, kJ/mol, Ha or Ry, or one of them "
            "per length, such as Ha/Bohr or kJ/mol/nm"
        )
    return ENERGIES[energy], ENERGIES[energy] / LENGTHS[length]


def tasks_of(
    frames: Iterator[Frame],
    forces_key: str | None,
    energy_key: str | None,
    factors: tuple[float, float],
    *,
    strict: bool,
) -> Iterator[Task]:
    """Frames with their references.

    Parameters
    ----------
    frames
        The frames.
    forces_key, energy_key
        As in :func:`~ase_sensitivity.dataset.scan.scan`.
    factors
        Those of :func:`unit_factors`.
    strict
        Whether a key that none of the first :data:`LOOKED_AT` frames has is an error. Other frames
        without it are given with an error, except single atoms without forces.

    Raises
    ------
    MissingReference
        If ``strict``, and no frame has a key.
    """
    keys = {"energy": energy_key, "forces": forces_key}
    wanted = {name for name, key in keys.items() if strict and key is not None}
    waiting: list[Task] = []
    missing: MissingReference | None = None
    for frame in frames:
        task, found, lacking = _with_references(frame, keys, factors)
        wanted -= found
        missing = missing or next((lacking[name] for name in wanted if name in lacking), None)
        if wanted:
            waiting.append(task)
            if missing is not None and len(waiting) >= LOOKED_AT:
                break
        else:
            yield from waiting
            waiting = []
            yield task
    if wanted and missing is not None:
        raise missing
    yield from waiting


def _with_references(
    frame: Frame, keys: Mapping[str, str | None], factors: tuple[float, float]
) -> tuple[Task, set[str], dict[str, MissingReference]]:
    """A frame, the names of references that it has, and an error for each that it lacks."""
    if frame.atoms is None:
        return Task(frame.source, frame.index, Atoms(), error=frame.error), set(), {}
    try:
        cached = cached_results(frame.atoms)
    except Exception as error:  # one frame must not stop the others
        task = Task(frame.source, frame.index, _bare(frame.atoms), error=reason(error))
        return task, set(keys), {}
    errors, lacking, there = [], {}, set(keys)
    values: dict[str, Any] = dict.fromkeys(keys)
    for name, read, factor in zip(keys, (_energy, _forces), factors, strict=True):
        try:
            values[name] = read(frame.atoms, cached, keys[name], factor)
        except MissingReference as error:
            there.discard(name)
            if len(frame.atoms) > 1 or name == "energy":
                lacking[name] = MissingReference(f"{frame.source}@{frame.index}: {error}")
                errors.append(reason(error))
        except Exception as error:
            errors.append(reason(error))
    bare = _stripped if frame.source != MEMORY and _is_as_read(frame.atoms, cached) else _bare
    task = Task(
        frame.source,
        frame.index,
        bare(frame.atoms, {name: value for name, value in values.items() if value is not None}),
        **values,
        error="; ".join(dict.fromkeys(errors)) or None,
    )
    return task, there, lacking


def _is_as_read(atoms: Atoms, cached: Mapping[str, Any]) -> bool:
    """Whether a structure has no more than arrays, and perhaps results without another name."""
    calculator = atoms.calc
    known = calculator is None or (
        bool(cached)
        and type(calculator) is SinglePointCalculator
        and calculator.name == SinglePointCalculator.name
        and not calculator.parameters
    )
    return known and type(atoms) is Atoms and not atoms.constraints


def _stripped(atoms: Atoms, known: dict[str, Any]) -> Atoms:
    """As :func:`_bare`, but the structure itself: a copy takes a third of the time of reading."""
    calculator = atoms.calc
    for owner in (atoms,) if calculator is None else (atoms, calculator.atoms):
        owner.info = {}
        for name in owner.arrays.keys() - {"numbers", "positions"}:
            del owner.arrays[name]
    if calculator is not None and known:
        calculator.results = known
    else:
        atoms.calc = SinglePointCalculator(atoms, **known) if known else None
    return atoms


def _bare(atoms: Atoms, known: Mapping[str, Any] | None = None) -> Atoms:
    """Species, positions, cell and references, without everything else that a frame may have."""
    bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    if known:
        bare.calc = SinglePointCalculator(bare, **known)
    return bare


def _reference(
    cached: Mapping[str, Any], name: str, key: str | None, listed: Mapping[str, Any]
) -> Any:
    """The entry ``key`` of the frame, or without a key that of :func:`cached_results`, else None.

    Raises
    ------
    MissingReference
        If the frame has no entry of the name ``key``.
    """
    if key is None:
        return cached.get(name)
    there = {name: cached[name]} if name in cached else {}
    there |= listed
    if key not in there:
        known = ", ".join(map(str, there)) or "nothing at all"
        similar = [str(other) for other, value in there.items() if _looks_like(name, other, value)]
        hint = f"; did you mean {' or '.join(map(repr, similar))}?" if similar else ""
        raise MissingReference(f"there is no {name} entry {key!r}; the frame has: {known}{hint}")
    return there[key]


def _looks_like(name: str, other: Any, value: Any) -> bool:
    """Whether an entry of a frame may be the forces, or the energy, from its shape and name."""
    if name == "energy":
        return "energy" in str(other).lower() and np.ndim(value) == 0
    known = ("positions", "momenta", "velocities", "initial_magmoms")
    return np.ndim(value) == 2 and np.shape(value)[1] == 3 and other not in known


def forces_like(atoms: Atoms) -> list[str]:
    """Names of arrays that look like forces by name and shape, if ASE has read no forces."""
    if "forces" in cached_results(atoms):
        return []
    return [
        name
        for name, array in atoms.arrays.items()
        if _looks_like("forces", name, array) and FORCES.search(name)
    ]


def _energy(
    atoms: Atoms, cached: Mapping[str, Any], key: str | None, factor: float
) -> float | None:
    value = _reference(cached, "energy", key, atoms.info)
    if value is None:
        return None
    try:
        energy = factor * float(value)
    except (TypeError, ValueError):
        raise ValueError(f"the energy is {value!r}, not a number") from None
    if not np.isfinite(energy):
        raise ValueError(f"the energy is {value}, not finite")
    return energy


def _forces(
    atoms: Atoms, cached: Mapping[str, Any], key: str | None, factor: float
) -> Floats | None:
    value = _reference(cached, "forces", key, atoms.arrays)
    if value is None:
        return None
    try:
        forces = factor * np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        raise ValueError("the forces are not numbers") from None
    if forces.shape != (len(atoms), 3):
        raise ValueError(f"the forces have shape {forces.shape}, not {(len(atoms), 3)}")
    finite = np.isfinite(forces).all(axis=1)
    if not finite.all():
        bad = int(np.flatnonzero(~finite)[0])
        raise ValueError(f"the force on atom {bad} is {forces[bad]}, not finite")
    return forces


def cached_results(atoms: Atoms) -> dict[str, Any]:
    """Energy and forces that the calculator has already; nothing is computed."""
    calculator = atoms.calc
    results = getattr(calculator, "results", None)
    check_state = getattr(calculator, "check_state", None)
    if not isinstance(results, dict) or check_state is None:
        return {}
    if not _is_unchanged(calculator, atoms) and check_state(atoms):
        return {}
    return {name: results[name] for name in ("energy", "forces") if name in results}


def _is_unchanged(calculator: Any, atoms: Atoms) -> bool:
    """Whether a calculator's structure is the same to the last digit.

    ASE compares within a tolerance, which takes as long as a fourth of the analysis of a molecule.
    """
    known = getattr(calculator, "atoms", None)
    if type(calculator).check_state is not Calculator.check_state or not isinstance(known, Atoms):
        return False
    names = {*known.arrays, *atoms.arrays} & {*all_changes}
    return (
        _are_same(known.cell.array, atoms.cell.array)
        and _are_same(known.pbc, atoms.pbc)
        and names <= known.arrays.keys() & atoms.arrays.keys()
        and all(_are_same(known.arrays[name], atoms.arrays[name]) for name in names)
    )


def _are_same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """As ``numpy.array_equal``, which takes twice as long for a molecule."""
    return a.shape == b.shape and bool((a == b).all())
