"""Stop wfl's dynamics where the descriptor of the potential goes blind."""

from wfl.generate.md.abort_base import AbortSimBase


class AbortOnSingular(AbortSimBase):
    """Stops near a singular configuration that no physics asks for.

    Parameters
    ----------
    distance
        How near, in Å: up to the `distance_threshold` of the calculator.
    n_failed_steps
        For how many steps in a row.
    """

    def __init__(self, distance=0.1, n_failed_steps=1):
        super().__init__(n_failed_steps)
        self.distance = distance

    def atoms_ok(self, atoms):
        """Whether nothing that matters is as near; `atoms` have a SensitivityCalculator."""
        return atoms.calc.get_property("spurious_distance", atoms) > self.distance
