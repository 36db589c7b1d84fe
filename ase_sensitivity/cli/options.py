"""Options that several commands share."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from ase_sensitivity.types import SCOPES


def one_of(*words: str) -> dict[str, Any]:
    """Complete and check an option that is one of a few words."""

    def check(value: str | None) -> str | None:
        if value is not None and value not in words:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(words)}")
        return value

    return {"callback": check, "autocompletion": lambda: list(words), "metavar": "|".join(words)}


def type_symbols(text: str | None) -> tuple[str, ...] | None:
    """The chemical symbols of ``--type-map``.

    Raises
    ------
    ValueError
        If they are none.
    """
    from ase_sensitivity.io.lammps import check_type_map  # loads ASE

    if text is None:
        return None
    try:
        return check_type_map(text.replace(",", " ").split())
    except (TypeError, ValueError):
        raise ValueError(
            f"--type-map is {text!r} but must be chemical symbols of the types 1, 2, ...: Si,O"
        ) from None


def as_given(descriptor: list[str] | None, gap: Path | None, species: str | None) -> str:
    """The options that gave a descriptor, for another command with the same one."""
    words = [word for text in descriptor or [] for word in ("--descriptor", text)]
    words += [] if gap is None else ["--gap", str(gap)]
    return shlex.join(words if species is None else [*words, "--species", species])


def _known_unit(text: str) -> str:
    from ase_sensitivity.io.references import unit_factors

    unit_factors(text)  # before minutes of reading, not after
    return text


Files = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE",
        help="Anything ASE reads, with its slices: run.traj@::10. By default all frames.",
        show_default=False,
    ),
]
DescriptorTexts = Annotated[
    list[str] | None,
    typer.Option(
        "--descriptor",
        "-d",
        metavar="TEXT",
        help='A QUIP string, "soap cutoff=5 n_max=8 l_max=6 atom_sigma=0.5"; several are seen '
        "together. Or a TOML file; a potential, mace:FILE, sevenn:7net-0 or chgnet; or "
        "module:function, which imports and runs your own code.",
        show_default=False,
    ),
]
Gap = Annotated[
    Path | None,
    typer.Option(
        "--gap",
        metavar="XML",
        help="A GAP potential, for the descriptors it was fitted with.",
        show_default=False,
    ),
]
Species = Annotated[
    str | None,
    typer.Option(
        "--species",
        metavar="C,H,...",
        help="Species that the descriptor sees. By default those in the files, which takes a "
        "pass of its own.",
        show_default=False,
    ),
]
TypeMap = Annotated[
    str | None,
    typer.Option(
        "--type-map",
        metavar="Si,O,...",
        help="Elements of the types 1, 2, ... in files of LAMMPS.",
        show_default=False,
    ),
]
ScopeName = Annotated[
    str,
    typer.Option(
        "--scope",
        help="All atoms together, the environments of the centers, or single atoms.",
        **one_of(*SCOPES),
    ),
]
NumberOfValues = Annotated[
    int,
    typer.Option(
        "--k", "-k", metavar="N", help="How many singular values and modes to show.", min=1
    ),
]
ForcesKey = Annotated[
    str | None,
    typer.Option(
        "--forces-key",
        metavar="KEY",
        help='Name of the reference forces in the files, such as "forces".',
        show_default=False,
    ),
]
EnergyKey = Annotated[
    str | None,
    typer.Option(
        "--energy-key",
        metavar="KEY",
        help='Name of the reference energy in the files, such as "energy".',
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs, and nothing else.")]
Units = Annotated[
    str,
    typer.Option(
        "--units",
        metavar="UNIT",
        callback=_known_unit,
        help="Unit of the energies in the files, with lengths in Å (eV, kcal/mol, kJ/mol, Ha), "
        "or of the forces (Ha/Bohr). Results are in eV and Å.",
    ),
]
Causes = Annotated[
    bool, typer.Option("--causes/--no-causes", help="Find out why singular values vanish.")
]
Workers = Annotated[
    int, typer.Option("--workers", metavar="N", help="Processes to share the work.", min=1)
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        metavar="ADDRESS",
        help="A Dask cluster to use instead: tcp://host:8786.",
        show_default=False,
    ),
]
Reference = Annotated[
    list[str] | None,
    typer.Option(
        "--reference",
        metavar="FILE",
        help="What the model was trained on: frames, or a saved ReferenceSet (.npz). Each frame is "
        "compared with it. Several are one set.",
        show_default=False,
    ),
]
Fit = Annotated[
    bool,
    typer.Option(
        "--fit/--no-fit", help="Fit forces to find doubtful ones; two more Jacobians of each frame."
    ),
]


def reference_of(files: list[str] | None) -> Any:
    """What ``--reference`` names: one saved set, or files with frames; None without it.

    Raises
    ------
    ValueError
        If a saved set is named beside other files.
    """
    from ase_sensitivity.environments.reference_file import is_reference_file

    if not files:
        return None
    if not any(map(is_reference_file, files)):
        return files
    if len(files) > 1:
        raise ValueError(f"--reference {files[0]} is a whole set; give nothing beside it")
    return files[0]
