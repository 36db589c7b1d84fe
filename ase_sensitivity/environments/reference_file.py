"""A reference set in one file: arrays of NumPy, and the rest as JSON."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from ase_sensitivity.environments.environment_set import Axes, Columns
from ase_sensitivity.environments.projection import Projection
from ase_sensitivity.environments.scales import Group, Scale
from ase_sensitivity.io.references import Task
from ase_sensitivity.io.whole_file import whole_file
from ase_sensitivity.plain_text import reason
from ase_sensitivity.types import Floats
from ase_sensitivity.validation import check_exists

FORMAT = "ase_sensitivity reference set 2"
SUFFIX = ".npz"

COLUMN = "column_"
SUMS = ("n", "square", "n_moved", "features", "shape")


@dataclass(frozen=True, eq=False)
class Saved:
    """What a file holds: attributes of the set, of its environments and of its scales."""

    descriptor_text: str
    radius: float
    structures: dict[int, Task]
    columns: Columns
    projections: dict[Axes, Projection]
    kinds: Sequence[Any]
    n_frames: int
    n_seen: int
    scales: dict[Group, Scale]


def is_reference_file(path: object) -> bool:
    """Whether this is the name of a file that :func:`write` writes."""
    return isinstance(path, str | os.PathLike) and str(path).endswith(SUFFIX)


def write(path: str | Path, saved: Saved) -> None:
    """Write a file, first under another name: a file that is there is complete."""
    if not is_reference_file(path):
        raise ValueError(f"`path` is {str(path)!r} but must end in {SUFFIX}")
    head = {
        "format": FORMAT,
        "descriptor": saved.descriptor_text,
        "radius": saved.radius,
        "kinds": saved.kinds,
        "n_frames": saved.n_frames,
        "n_seen": saved.n_seen,
        "scales": [
            [*group, *(getattr(scale, name) for name in SUMS)]
            for group, scale in saved.scales.items()
        ],
        "axes": list(saved.projections),
    }
    arrays = {COLUMN + name: column for name, column in saved.columns.items()}
    arrays |= _structures(saved.structures)
    for k, scale in enumerate(saved.scales.values()):
        origin = np.zeros(0) if scale.origin is None else scale.origin
        arrays |= {f"scale_origin_{k}": origin, f"scale_total_{k}": scale.total}
    for k, projection in enumerate(saved.projections.values()):
        arrays |= {f"origin_{k}": projection.origin, f"axes_{k}": projection.axes}
    with whole_file(path) as whole, open(whole, "wb") as file:
        np.savez(file, head=np.array(json.dumps(head)), **arrays)


def read(path: str | Path) -> Saved:
    """Read a file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is something else, or damaged.
    """
    check_exists(path)
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path} is no reference set, or is damaged; make one with ReferenceSet(...).save"
        )
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        head = json.loads(str(arrays["head"]))
        if head["format"] != FORMAT:
            raise ValueError(f"its format is {head['format']!r}")
        return _saved(head, arrays)
    except (ValueError, TypeError, KeyError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} is no reference set, or is damaged: {reason(error)}; make it again"
        ) from error


def _saved(head: dict[str, Any], arrays: dict[str, Any]) -> Saved:
    scales = {}
    for k, (number, kind, *sums) in enumerate(head["scales"]):
        scale = Scale(**dict(zip(SUMS, sums, strict=True)))
        scale.origin, scale.total = arrays[f"scale_origin_{k}"], arrays[f"scale_total_{k}"]
        scales[int(number), int(kind)] = scale
    return Saved(
        descriptor_text=str(head["descriptor"]),
        radius=float(head["radius"]),
        structures=dict(_tasks(arrays)),
        columns={
            name.removeprefix(COLUMN): array
            for name, array in arrays.items()
            if name.startswith(COLUMN)
        },
        projections={
            (int(length), int(number)): Projection.restored(
                arrays[f"origin_{k}"], arrays[f"axes_{k}"]
            )
            for k, (length, number) in enumerate(head["axes"])
        },
        kinds=[(tuple(map(tuple, shape)), tuple(made_of)) for shape, made_of in head["kinds"]],
        n_frames=int(head["n_frames"]),
        n_seen=int(head["n_seen"]),
        scales=scales,
    )


def _structures(structures: dict[int, Task]) -> dict[str, Any]:
    """Arrays with the structures and their reference values."""
    tasks = list(structures.values())
    nothing: Floats = np.full(3, np.nan)
    sources = {source: k for k, source in enumerate(dict.fromkeys(task.source for task in tasks))}
    energies = [np.nan if task.energy is None else task.energy for task in tasks]
    forces = [
        np.tile(nothing, (len(task.atoms), 1)) if task.forces is None else task.forces
        for task in tasks
    ]
    return {
        "frame": np.array(list(structures), dtype=np.int64),
        "index": np.array([task.index for task in tasks], dtype=np.int64),
        "sources": np.array(list(sources)),
        "source": np.array([sources[task.source] for task in tasks], dtype=np.int64),
        "n_atoms": np.array([len(task.atoms) for task in tasks], dtype=np.int64),
        "numbers": np.concatenate([task.atoms.numbers for task in tasks]),
        "positions": np.concatenate([task.atoms.positions for task in tasks]),
        "cells": np.array([task.atoms.cell.array for task in tasks]),
        "pbc": np.array([task.atoms.pbc for task in tasks]),
        "energies": np.array(energies, dtype=float),
        "forces": np.concatenate(forces),
    }


def _tasks(arrays: dict[str, Any]) -> list[tuple[int, Task]]:
    ends = np.cumsum(arrays["n_atoms"]).tolist()
    begins = [0, *ends[:-1]]
    sources = arrays["sources"].tolist()
    found = []
    for k, number in enumerate(arrays["frame"].tolist()):
        own = slice(begins[k], ends[k])
        forces = arrays["forces"][own]
        energy = float(arrays["energies"][k])
        atoms = Atoms(
            arrays["numbers"][own],
            arrays["positions"][own],
            cell=arrays["cells"][k],
            pbc=arrays["pbc"][k],
        )
        task = Task(
            source=sources[int(arrays["source"][k])],
            index=int(arrays["index"][k]),
            atoms=atoms,
            energy=None if np.isnan(energy) else energy,
            forces=None if np.isnan(forces).any() else forces,
        )
        found.append((number, task))
    return found
