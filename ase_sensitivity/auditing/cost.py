"""What features and Jacobians cost, in processor time per atom."""

from __future__ import annotations

import time
from collections.abc import Callable

from ase import Atoms

from ase_sensitivity.auditing.check import OK, Check, skipped
from ase_sensitivity.auditing.ratios import soap_beside
from ase_sensitivity.descriptors.base import Descriptor, jacobian_of, restricted

GROUP = "cost"
REPEATS = 3
"""The smallest of so many times counts."""


def cost_checks(descriptor: Descriptor, structures: dict[str, Atoms]) -> list[Check]:
    """Processor time per atom of the features and of J^T J, beside that of SOAP."""
    if not structures:
        return [skipped(GROUP, "time per atom", "it does not know the elements")]
    return [_of(descriptor, name, atoms) for name, atoms in structures.items()]


def _of(descriptor: Descriptor, name: str, atoms: Atoms) -> Check:
    own, soap = restricted(descriptor, atoms), soap_beside(atoms)
    tasks: dict[str, Callable[[], object]] = {
        "features": lambda: own.features(atoms),
        "gram": lambda: jacobian_of(own, atoms).gram(),
        "soap": lambda: jacobian_of(soap, atoms).gram(),
    }
    for task in tasks.values():
        task()  # compiles, and loads
    times = {what: float("inf") for what in tasks}
    for _ in range(REPEATS):
        for what, task in tasks.items():
            start = time.process_time()
            task()
            times[what] = min(times[what], (time.process_time() - start) / len(atoms))
    return Check(
        GROUP,
        f"time per atom, {name}",
        f"features {_text(times['features'])}, J^T J {_text(times['gram'])}",
        f"SOAP: J^T J {_text(times['soap'])}",
        OK,
        values={f"{what}_seconds": seconds for what, seconds in times.items()},
    )


def _text(seconds: float) -> str:
    return f"{1e3 * seconds:.2g} ms"
