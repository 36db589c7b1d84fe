"""Frames with their softest modes as arrows, for the viewer chemiscope."""

import chemiscope

from ase_sensitivity import analyze


def write_modes(path, frames, descriptor, scale=2.0):
    """Write frames with sigma_min / sigma_max and the softest mode of each.

    Parameters
    ----------
    path
        The file, of which the name ends in ``.json`` or ``.json.gz``.
    frames
        The structures.
    descriptor
        What the potential sees.
    scale
        Length of an arrow in Å for a component 1 of the mode.
    """
    shown, ratios = [], []
    for frame in frames:
        found = analyze(frame, descriptor, k=1)
        atoms = frame.copy()
        atoms.arrays["softest_mode"] = found.modes[0]
        shown.append(atoms)
        ratios.append(found.ratio)
    chemiscope.write_input(
        str(path),
        shown,
        properties={"ratio": {"target": "structure", "values": ratios}},
        shapes={"mode": chemiscope.ase_vectors_to_arrows(shown, "softest_mode", scale=scale)},
        settings={"structure": [{"shape": "mode"}]},
    )
