"""The features of a NEP potential, by calorine."""

from calorine.nep import get_descriptors


class NEPFeatures:
    """The features of each atom, for FiniteDifferenceDescriptor.

    Parameters
    ----------
    model
        The file of the potential, ``nep.txt``.
    """

    def __init__(self, model):
        self.model = str(model)

    def __call__(self, atoms):
        """Of shape (n_atoms, n_features)."""
        boxed = atoms.copy()
        if not boxed.pbc.any():  # calorine needs a cell
            boxed.set_cell([100, 100, 100])
        return get_descriptors(boxed, self.model)
