"""What an observer does in a singular state, depending on its cause."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ase import Atoms

from ase_sensitivity.causes.cause import CAUSES
from ase_sensitivity.sensitivity import Sensitivity

ACTIONS = ("log", "warn", "record", "halt", "raise")

Callback = Callable[[Sensitivity, Atoms, int], object]
KINDS = ("twin", "novel")
"""What a comparison with a reference finds, beside the causes of singular configurations."""

Action = str | Callback
Actions = Action | Sequence[Action]


def actions_by_cause(
    given: Actions | Mapping[str, Actions],
    otherwise: Sequence[str],
    trajectory: object,
    compared: bool = False,
) -> dict[str, tuple[Action, ...]]:
    """Actions for each cause that has any.

    Parameters
    ----------
    given
        Actions for all of ``otherwise``, or for each cause.
    otherwise
        The causes that matter where none are named.
    trajectory
        Where to record frames, or None.
    compared
        Whether there is a reference, so that :data:`KINDS` have actions as well.

    Raises
    ------
    TypeError, ValueError
        If something else is given.
    """
    if isinstance(given, Mapping):
        for cause in given:
            if cause in KINDS and not compared:
                raise ValueError(
                    f"`on_singular` has {cause!r}, which needs `reference`, the set to compare with"
                )
            if cause not in (*CAUSES, *KINDS):
                raise ValueError(
                    f"`on_singular` has the cause {cause!r} but knows "
                    f"{', '.join((*CAUSES, *KINDS))}"
                )
        return {cause: _checked(actions, trajectory) for cause, actions in given.items()}
    checked = _checked(given, trajectory)
    return dict.fromkeys(otherwise, checked)


def check_can_halt(dyn: Any) -> None:
    """Raise ValueError if ``dyn`` would not notice that it shall stop."""
    from ase.md.switch_langevin import SwitchLangevin
    from ase.mep.neb import NEBOptimizer
    from ase.optimize.basin import BasinHopping
    from ase.optimize.sciopt import SciPyGradientlessOptimizer, SciPyOptimizer

    deaf = (SciPyOptimizer, SciPyGradientlessOptimizer, BasinHopping, NEBOptimizer)
    if isinstance(dyn, (*deaf, SwitchLangevin)) or not hasattr(dyn, "max_steps"):
        raise ValueError(
            f'`on_singular="halt"` cannot stop {dyn.__class__.__name__}, which has a loop '
            'of its own; use "raise"'
        )


def _checked(given: Actions, trajectory: object) -> tuple[Action, ...]:
    if not isinstance(given, str | Iterable) and not callable(given):
        raise TypeError(
            f"`on_singular` is {given!r} but must be {', '.join(ACTIONS)}, a function, a list, "
            "or a dictionary of these for each cause"
        )
    actions = (given,) if isinstance(given, str) or callable(given) else tuple(given)
    for action in actions:
        if not callable(action) and action not in ACTIONS:
            raise ValueError(
                f"`on_singular` has {action!r} but takes {', '.join(ACTIONS)} or a function"
            )
    if "record" in actions and trajectory is None:
        raise ValueError('`on_singular="record"` needs `trajectory`, the file to write to')
    return actions
