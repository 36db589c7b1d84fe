"""Where the command ``ase-sensitivity`` begins."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line; 2 if not even that is possible, as Python's 1 means a failed check."""
    try:
        from ase_sensitivity.cli.app import main as run
    except Exception as error:
        print(  # noqa: T201
            f"ase-sensitivity: error: the installation is broken: {type(error).__name__}: {error}",
            file=sys.stderr,
        )
        return 2
    return run()
