"""All checks of an audit, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from ase import Atoms

from ase_sensitivity.analysis import check_descriptor_type
from ase_sensitivity.auditing import blindness, contract, cost, cutoff, ratios, symmetry
from ase_sensitivity.auditing.check import Check, raised
from ase_sensitivity.auditing.reference import ENVIRONMENTS, PAIRS
from ase_sensitivity.auditing.result import Audit
from ase_sensitivity.auditing.structures import (
    crystals,
    dimers,
    generic,
    known_of,
    molecules,
    shaken,
)
from ase_sensitivity.descriptors.base import Descriptor
from ase_sensitivity.validation import as_flag
from ase_sensitivity.version import __version__

Task = tuple[str, str, Callable[[], list[Check]]]
"""The group and the name of a check, and what does it."""


def audit(
    descriptor: Descriptor,
    *,
    full: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> Audit:
    """Find out what a descriptor keeps of its contract, where it is blind, and what it costs.

    Parameters
    ----------
    descriptor
        Anything with the attributes of :class:`~ase_sensitivity.Descriptor`. Structures with
        elements that it does not know are left out.
    full
        Look at the whole sets g2 and s22, at larger cells and at a slab. By default at a selection
        of these.
    progress
        Called with the number of checks done, of :func:`~ase_sensitivity.auditing.run.n_checks`.

    Returns
    -------
    Audit
        A row for each check. One that raises costs its own row only, which has failed.

    Raises
    ------
    TypeError
        If that is no descriptor.

    Notes
    -----
    See :ref:`audit`. Differences, invariances, the sum rule and others are those of
    :func:`~ase_sensitivity.testing.check_descriptor`.

    Examples
    --------
    >>> from ase_sensitivity import SOAP
    >>> soap = SOAP(["C", "H", "O"], 3.0, 8, 8, 0.3, normalise=False, central_weight=0)
    >>> found = audit(soap)
    >>> found.passed, found.check("S1").measured
    (True, '1 of 9 null, next ...')
    """
    check_descriptor_type(descriptor)
    as_flag("full", full)
    checks: list[Check] = []
    progress(0)
    for done, (group, name, task) in enumerate(_tasks(descriptor, full), start=1):
        try:
            checks += task()
        except Exception as error:
            checks.append(raised(group, name, error))
        progress(done)
    return Audit(repr(descriptor), __version__, full, tuple(checks))


def n_checks() -> int:
    """Number of checks that an audit makes."""
    return 8 + len(ENVIRONMENTS) + len(PAIRS)


def _tasks(descriptor: Descriptor, full: bool) -> Iterator[Task]:
    def known(structures: dict[str, Atoms]) -> dict[str, Atoms]:
        return known_of(descriptor, structures)

    shapes = generic(descriptor)
    if not full:
        del shapes["slab"]
    isolated, solid, pairs = known(molecules(full)), known(crystals(full)), known(dimers(full))
    yield contract.GROUP, "contract", partial(contract.contract_checks, descriptor, shapes)
    yield cutoff.GROUP, cutoff.NAME, partial(cutoff.smoothness, descriptor)
    for name, some in (("molecules", isolated), ("crystals", solid)):
        yield symmetry.GROUP, name, partial(symmetry.symmetry_checks, descriptor, name, some)
    for name, atoms in ENVIRONMENTS.items():
        check = partial(blindness.environment_checks, descriptor, name, atoms)
        yield blindness.GROUP, name, check
    for name, pair in PAIRS.items():
        yield blindness.GROUP, name, partial(blindness.pair_checks, descriptor, name, pair)
    for name, some in (("g2", isolated), ("s22", pairs), ("shaken crystals", solid)):
        check = partial(ratios.ratio_checks, descriptor, name, shaken(some))
        yield ratios.GROUP, name, check
    timed = {
        name: some[name] for name, some in (("CH3CH2OH", isolated), ("Si", solid)) if name in some
    }
    yield cost.GROUP, "time per atom", partial(cost.cost_checks, descriptor, shaken(timed))
