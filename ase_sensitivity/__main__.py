"""``python -m ase_sensitivity`` is the command ``ase-sensitivity``."""

import sys

from ase_sensitivity.cli.start import main

if __name__ == "__main__":
    sys.exit(main())
