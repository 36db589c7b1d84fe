"""``ase-sensitivity demo``: a blind direction that does no harm, and one that ruins a model."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console


def run(directory: Path, *, only: str | None, steps: int, seed: int) -> None:
    """Run the demo and save logs, flagged frames and pictures.

    Parameters
    ----------
    directory
        Where to; made if missing.
    only
        One of the two parts, ``"ammonia"`` or ``"methane"``.
    steps
        Number of steps of ammonia.
    seed
        Of its velocities and its thermostat, and of the runs of methane that are watched.

    Raises
    ------
    ImportError
        If tblite is not installed.
    ValueError
        If the directory is a file.
    """
    from threadpoolctl import threadpool_limits

    from ase_sensitivity.cli.demo import ammonia, methane
    from ase_sensitivity.cli.demo.compiling import compile_aside
    from ase_sensitivity.demonstration.methane import xtb

    calculator = xtb()
    if directory.exists() and not directory.is_dir():
        raise ValueError(f"`--directory` is {str(directory)!r}, which is not a directory")
    directory.mkdir(parents=True, exist_ok=True)
    console = Console()
    # Threads of the force engine would only wait for each other.
    with threadpool_limits(1), compile_aside() as kernels:
        if only != "methane":
            ammonia.run(console, calculator, directory, kernels, steps=steps, seed=seed)
        if only != "ammonia":
            methane.run(console, calculator, directory, seed=seed)
