"""Null directions in the reference environments, of all layers and of each one."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms

from ase_sensitivity.analysis import analyze
from ase_sensitivity.auditing.check import FAILED, FINDING, OK, Check, skipped
from ase_sensitivity.auditing.reference import DEGENERATE, blind_directions
from ase_sensitivity.auditing.structures import lacking
from ase_sensitivity.descriptors.base import Descriptor, HasLayers, restricted, rows_of
from ase_sensitivity.sensitivity import Sensitivity
from ase_sensitivity.spectrum.solvers import SumRuleError
from ase_sensitivity.types import Floats

GROUP = "reference environments"
SOAPS_NU = 2
"""Of the directions that a descriptor without a known body order is asked for."""

SAME = 1e-8
"""Features that differ by less than this fraction of their norm are the same, unless their
precision is worse."""


def environment_checks(descriptor: Descriptor, name: str, atoms: Atoms) -> list[Check]:
    """Null directions of the center's rows, against what the body order says.

    The layers of a descriptor that has some are looked at one by one, and all together.
    """
    if symbols := lacking(descriptor, atoms):
        return [skipped(GROUP, name, f"it does not know {', '.join(symbols)}")]
    try:
        found = _found(descriptor, atoms)
    except SumRuleError:
        raise
    except ValueError as error:
        return [skipped(GROUP, name, str(error))]
    n_all = found.n_coordinates - found.n_trivial
    order = descriptor.body_order
    values: dict[str, Any] = {
        "n_null": found.n_null,
        "n_coordinates": n_all,
        "ratio": _least_seen(found),
        "expected": None,
        "body_order": order,
    }
    measured = f"{found.n_null} of {n_all} null, next {_least_seen(found):.2g}"
    if order is None:
        modes = blind_directions(atoms, SOAPS_NU)
        verdict = FINDING if found.n_null else OK
        expected = "unknown"
        note = f"{found.n_null} invisible, cause unknown" if found.n_null else ""
        if len(modes):
            sees = seen(found, modes)
            values["blind_at_nu_2"] = sees
            measured += f", nu = 2's {sees:.2g}"
    else:
        wanted = len(blind_directions(atoms, order - 1))
        values["expected"] = wanted
        expected = f"{wanted} at nu = {order - 1}"
        verdict, note = OK, ""
        if found.n_null < wanted:
            verdict = FAILED
            note = f"it sees {wanted - found.n_null} that its body order does not: it has another"
        elif found.n_null > wanted:
            verdict = FINDING
            note = f"{found.n_null - wanted} more than in an infinite basis: truncation"
    if found.n_null and found.resolution > SAME:
        note += f"; values below {found.resolution:.0e} of the largest are not resolved"
    width = rows_of(restricted(descriptor, atoms), atoms)[0][0].shape[1]
    if found.n_null and width < n_all:
        note += f"; {n_all - width} at least, as there are {width} features"
    if isinstance(descriptor, HasLayers) and descriptor.n_layers > 1:
        by_layer = _by_layer(descriptor, atoms)
        values["n_null_by_layer"] = by_layer
        measured += f"; by layer {' '.join(str(n) for n in by_layer[:-1])}, all {by_layer[-1]}"
        note = "; ".join(text for text in (note, _lifted(by_layer)) if text)
    return [Check(GROUP, name, measured, expected, verdict, note.removeprefix("; "), values)]


def pair_checks(descriptor: Descriptor, name: str, pair: tuple[Atoms, Atoms]) -> list[Check]:
    """Whether two different environments have the same features, against the body order."""
    if symbols := lacking(descriptor, pair[0]):
        return [skipped(GROUP, name, f"it does not know {', '.join(symbols)}")]
    distance, precision = _distance(descriptor, pair)
    if distance is None:
        return [skipped(GROUP, name, "it has no row for the center")]
    same = bool(distance <= max(SAME, 100 * precision))
    order = descriptor.body_order
    values: dict[str, Any] = {"distance": distance, "same": same, "body_order": order}
    verdict, note, expected = OK, "", "unknown"
    if order is None:
        if same:
            verdict, note = FINDING, "two environments cannot be distinguished"
    else:
        degenerate = order - 1 <= DEGENERATE
        expected = f"{'the same' if degenerate else 'different'} at nu = {order - 1}"
        if same and not degenerate:
            verdict, note = FINDING, "the same although its body order could tell them apart"
        elif degenerate and not same:
            verdict, note = FAILED, "its body order cannot tell them apart: it has another"
    measured = f"features differ by {distance:.1e}"
    if isinstance(descriptor, HasLayers) and descriptor.n_layers > 1:
        layers = [
            _distance(descriptor.at_layers((n,)), pair)[0]
            for n in range(1, descriptor.n_layers + 1)
        ]
        values["distance_by_layer"] = layers
        measured += "; by layer " + " ".join("-" if d is None else f"{d:.0e}" for d in layers)
    return [Check(GROUP, name, measured, expected, verdict, note, values)]


def seen(found: Sensitivity, modes: Floats) -> float:
    """The least |J v| over the scale, of unit vectors v among displacements (m, n_atoms, 3)."""
    weights = np.einsum("kax,max->km", found.modes, modes[:, found.atoms])
    changes = found.singular_values[:, None] * weights
    return float(np.linalg.svd(changes, compute_uv=False)[-1]) / (found.scale or 1.0)


def _found(descriptor: Descriptor, atoms: Atoms) -> Sensitivity:
    return analyze(atoms, descriptor, scope="environment", center=0, k=None, each=False)


def _least_seen(found: Sensitivity) -> float:
    """The smallest ratio that is not zero; 0 if there is none."""
    rest = found.singular_values[found.n_null :]
    return float(rest[0]) / found.scale if len(rest) and found.scale > 0 else 0.0


def _by_layer(descriptor: HasLayers, atoms: Atoms) -> list[int]:
    """Numbers of null directions in each layer, and at the end in all together."""
    layers = range(1, descriptor.n_layers + 1)
    wanted = [(n,) for n in layers] + [tuple(layers)]
    return [_found(descriptor.at_layers(chosen), atoms).n_null for chosen in wanted]


def _lifted(by_layer: list[int]) -> str:
    """Where blindness of the first layer ends, in words."""
    *layers, together = by_layer
    if not any(layers):
        return ""
    if together:
        return f"{together} remain in all layers together"
    return f"lifted at layer {layers.index(0) + 1}" if 0 in layers else "lifted by all together"


def _distance(descriptor: Descriptor, pair: tuple[Atoms, Atoms]) -> tuple[float | None, float]:
    """Distance of the features of the first atoms over their norm, and the precision of these."""
    rows = []
    for atoms in pair:
        own = restricted(descriptor, atoms)
        parts = [features[centers == 0].ravel() for features, centers in rows_of(own, atoms)]
        rows.append(np.concatenate(parts))
    if not len(rows[0]) or rows[0].shape != rows[1].shape:
        return None, 0.0
    precision = descriptor.jacobian(pair[0]).precision
    norm = float(np.linalg.norm(rows[0])) or 1.0
    return float(np.linalg.norm(rows[0] - rows[1])) / norm, precision
