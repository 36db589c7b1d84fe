"""A modifier for OVITO: the softest mode as a vector of each particle, to color by or to draw."""

from ovito.io.ase import ovito_to_ase
from ovito.pipeline import ModifierInterface

from ase_sensitivity import SOAP, analyze


class SoftestMode(ModifierInterface):
    """The smallest singular value and its mode, seen by SOAP on all atoms."""

    def modify(self, data, **kwargs):
        """Add the property "Softest mode" and the attribute "Sensitivity ratio"."""
        atoms = ovito_to_ase(data)
        soap = SOAP(sorted(set(atoms.symbols)), cutoff=5.0, n_max=8, l_max=6)
        found = analyze(atoms, soap, k=1)
        data.particles_.create_property("Softest mode", data=found.modes[0])
        data.attributes["Sensitivity ratio"] = found.ratio
