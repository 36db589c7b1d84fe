"""Everything the page shows, as plain numbers and words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ase_sensitivity.causes.cause import CAUSES, NULL_CAUSES, SPURIOUS
from ase_sensitivity.progress import progress
from ase_sensitivity.report.partners import PartnerOf
from ase_sensitivity.sensitivity import NEARLY
from ase_sensitivity.types import Floats, Ints

if TYPE_CHECKING:
    from ase_sensitivity.dataset.record import FrameRecord
    from ase_sensitivity.dataset.result import ScanResult

MOST_ROWS = 100_000
"""Rows on the page; of more, the worst half and an even selection of the rest."""

MOST_STRUCTURES = 50
MOST_ATOMS = 20_000
"""Structures to look at, and the atoms they may have together."""

MOST_MODES = 4
MOST_COLUMNS = 400
"""Modes of a structure, and columns of the heat map."""

LABELS: dict[str, tuple[str, str]] = {
    "source": ("source", ""),
    "index": ("index", ""),
    "formula": ("formula", ""),
    "n_atoms": ("atoms", ""),
    "ratio": ("σ min / σ max", ""),
    "sigma_min": ("σ min", "1/Å"),
    "sigma_max": ("σ max", "1/Å"),
    "cause": ("cause", ""),
    "n_null": ("null", ""),
    "n_near_null": ("near null", ""),
    **{f"n_{name}": (name, "") for name in NULL_CAUSES},
    "center": ("center", ""),
    "worst_atom": ("softest atom", ""),
    "distance": ("distance", "Å"),
    "irreducible_force_error": ("irreducible error", "eV/Å"),
    "required_slope": ("required slope", "eV/Å"),
    "rms_force": ("rms force", "eV/Å"),
    "net_force": ("net force", "eV/Å"),
    "net_torque": ("net torque", "eV"),
    "unseen": ("unseen elements", ""),
    "error": ("error", ""),
}
"""Columns of the table in order: what they are called and their unit."""

QUANTITIES = ("ratio", "irreducible_force_error", "required_slope", "distance", "sigma_min")


def contents(
    result: ScanResult, *, timestep: float | None = None, partner_of: PartnerOf | None = None
) -> dict[str, Any]:
    """What the script of the page draws, ready for JSON.

    Parameters
    ----------
    result
        Of a scan.
    timestep
        Time between two frames in fs, for the axis of the frames.
    partner_of
        Looks for the partners of the structures that are drawn.
    """
    rows = result.rows
    if len({row["source"] for row in rows}) == 1:  # resumed scans of slices are out of order
        kept = np.array(sorted(kept_rows(rows), key=lambda number: rows[number]["index"]))
    else:
        kept = kept_rows(rows)
    place = {int(number): i for i, number in enumerate(kept)}
    worst = [number for number in worst_first(rows) if number in place]
    shown = [rows[number] for number in kept]
    columns = _columns(shown)
    structures, elements = _structures(result, worst, place)
    if partner_of is not None:
        with progress("Partners", len(structures)) as move:
            for done, entry in enumerate(structures, 1):
                entry["partner"] = partner_of(result.record(entry["number"]).atoms)
                move(done)
    thresholds, irreducible = result.curve
    null = float(result.parameters["null_tolerance"])
    return {
        "n_rows": len(shown),
        "note": _note(len(kept), len(rows), len(structures)),
        "columns": columns,
        "causes": [
            {"name": name, "marker": CAUSES[name].marker, "colors": CAUSES[name].page_colors}
            for name in reversed(NULL_CAUSES)
        ],
        "quantities": [
            {"key": key, "label": LABELS[key][0], "unit": LABELS[key][1], "log": True}
            for key in QUANTITIES
            if any(row[key] is not None for row in shown)
        ],
        "thresholds": {
            "ratio": [
                {"value": NEARLY, "label": f"nearly invisible below {NEARLY:g}"},
                {"value": null, "label": "zero"},
            ]
        },
        "floor": null / 10,
        "x": _axis(shown, kept, timestep),
        "worst": [place[entry["number"]] for entry in structures],
        "structures": structures,
        "elements": elements,
        "curve": None
        if np.isnan(irreducible).any()
        else {"threshold": rounded(thresholds), "irreducible": rounded(irreducible)},
        "species_loss": dict(
            zip(
                result.species_loss,
                rounded(np.array(list(result.species_loss.values()))),
                strict=True,
            )
        ),
        "spectrum": _spectrum(result, kept, null),
    }


def severity(row: Mapping[str, Any]) -> tuple[float, int, float]:
    """Larger for what matters more: lost force, spurious null directions, small ratio."""
    lost = row["irreducible_force_error"] or 0.0
    spurious = sum(row[f"n_{cause}"] or 0 for cause in SPURIOUS)
    return round(lost, 4), spurious, -row["ratio"]


def worst_first(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Numbers of the rows that could be analyzed, the worst first."""
    done = [number for number, row in enumerate(rows) if row["ratio"] is not None]
    return sorted(done, key=lambda number: severity(rows[number]), reverse=True)


def kept_rows(rows: Sequence[Mapping[str, Any]], most: int = MOST_ROWS) -> Ints:
    """Numbers of at most ``most`` rows, ascending: the worst half, and an even selection."""
    if len(rows) <= most:
        return np.arange(len(rows))
    worst = np.array(worst_first(rows)[: most // 2], dtype=np.intp)
    even = np.linspace(0, len(rows) - 1, most - len(worst)).astype(np.intp)
    kept: Ints = np.unique(np.concatenate([worst, even]))
    return kept


def rounded(values: Floats, digits: int = 5) -> Any:
    """Lists of numbers with so many digits, None for what is not finite."""
    if values.ndim > 1:
        return [rounded(entry, digits) for entry in values]
    return [_number(value, digits) for value in values.tolist()]


def _number(value: float | None, digits: int = 5) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    columns = []
    for key, (label, unit) in LABELS.items():
        values = [row[key] for row in rows]
        if all(value is None for value in values):
            continue
        column: dict[str, Any] = {"key": key, "label": label, "unit": unit}
        if any(isinstance(value, str) for value in values):
            words = list(dict.fromkeys(str(value) for value in values if value is not None))
            code = {word: number for number, word in enumerate(words)}
            column["words"] = words
            column["values"] = [None if value is None else code[str(value)] for value in values]
        else:
            column["values"] = [
                int(value)
                if isinstance(value, int | np.integer)
                else _number(None if value is None else float(value))
                for value in values
            ]
        columns.append(column)
    return columns


def _note(kept: int, total: int, structures: int) -> str:
    words = [f"{total} frames."]
    if kept < total:
        words.append(f"The page holds {kept} of them, the worst among these.")
    if structures < kept:
        words.append(f"The {structures} worst can be looked at in three dimensions.")
    return " ".join(words)


def _axis(rows: Sequence[Mapping[str, Any]], kept: Ints, timestep: float | None) -> dict[str, Any]:
    if timestep is not None:
        index = [row["index"] for row in rows]
        return {"label": "time (fs)", "values": [_number(i * timestep, 8) for i in index]}
    sources = {row["source"] for row in rows}
    if len(sources) == 1:
        return {"label": "frame", "values": [row["index"] for row in rows]}
    return {"label": "row of the results", "values": kept.tolist()}


def _structures(
    result: ScanResult, worst: Sequence[int], place: Mapping[int, int]
) -> tuple[list[dict[str, Any]], dict[int, dict[str, Any]]]:
    from ase.data import chemical_symbols, covalent_radii
    from ase.data.colors import jmol_colors

    found: list[dict[str, Any]] = []
    elements: dict[int, dict[str, Any]] = {}
    n_atoms = 0
    for number in worst[:MOST_STRUCTURES]:
        record = result.record(number)
        atoms = record.atoms
        n_atoms += len(atoms)
        if found and n_atoms > MOST_ATOMS:
            break
        modes = record.modes[:MOST_MODES]
        loss = record.force_loss
        found.append(
            {
                "number": number,
                "row": place[number],
                "numbers": atoms.numbers.tolist(),
                "positions": np.round(atoms.positions, 4).tolist(),
                "cell": np.round(atoms.cell.array, 4).tolist(),
                "pbc": atoms.pbc.tolist(),
                "modes": np.round(modes, 4).tolist(),
                "ratios": rounded(_relative(record)[:MOST_MODES]),
                "causes": list(record.causes or [None] * len(modes))[:MOST_MODES],
                "force_loss": None if loss is None else rounded(loss, 4),
            }
        )
        for z in set(atoms.numbers.tolist()) - elements.keys():
            elements[z] = {
                "symbol": chemical_symbols[z],
                "radius": round(float(covalent_radii[z]), 2),
                "color": "#" + "".join(f"{int(255 * c):02x}" for c in _color(jmol_colors, z)),
            }
    return found, elements


def _relative(record: FrameRecord) -> Floats:
    """Singular values over their scale."""
    return record.singular_values / (record.scale or 1.0)


def _color(colors: Floats, z: int) -> Floats:
    return colors[z] if z < len(colors) else np.array([0.5, 0.5, 0.5])


def _spectrum(result: ScanResult, kept: Ints, floor: float) -> dict[str, Any]:
    """Heat map of log10(sigma / sigma_max): of every so many frames, that of smallest ratio."""
    rows = result.rows
    done = [i for i, number in enumerate(kept) if rows[number]["ratio"] is not None]
    chosen = []
    for some in np.array_split(np.array(done, dtype=np.intp), min(len(done), MOST_COLUMNS) or 1):
        if len(some):
            chosen.append(int(min(some, key=lambda i: rows[kept[i]]["ratio"])))
    spectra = []
    for i in chosen:
        record = result.record(int(kept[i]))
        spectra.append(np.log10(np.maximum(_relative(record), floor)))
    height = max((len(values) for values in spectra), default=0)
    table = np.full((height, len(spectra)), np.nan)
    for i, values in enumerate(spectra):
        table[: len(values), i] = values
    known = table[np.isfinite(table)]
    note = "The smallest singular values of each frame, relative to the largest."
    if len(chosen) < len(done):
        note += f" Of about {round(len(done) / len(chosen))} frames, the one of smallest ratio."
    return {
        "rows": chosen,
        "z": rounded(table, 4) if height else [],
        "zmin": _number(float(known.min())) if len(known) else -1.0,
        "note": note,
    }
