"""Measure what the numbers are good for.

Usage: python -m benchmarks.value FOLDER [--questions select doubt] [--sets Si Ge] [--seeds 8]

The folder has the files of :data:`benchmarks.value.data.SETS`; docs/value.md says where they are
from. Each question gives a table and a plot, in the folder of ``--output``.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[name] = "1"  # before anybody loads a library that reads it

from matplotlib.figure import Figure  # noqa: E402

from benchmarks.tables import markdown  # noqa: E402
from benchmarks.value import basis, blind, doubt, err, select, teach, trust  # noqa: E402
from benchmarks.value.data import SETS  # noqa: E402

QUESTIONS: dict[str, Any] = {
    "select": select,
    "teach": teach,
    "doubt": doubt,
    "basis": basis,
    "err": err,
    "trust": trust,
    "blind": blind,
}
"""The module of each question."""


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the data are")
    parser.add_argument("--questions", nargs="*", default=list(QUESTIONS), choices=list(QUESTIONS))
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=list(SETS))
    parser.add_argument("--seeds", type=int, default=8, help="number of splits, or of repetitions")
    parser.add_argument("--output", type=Path, default=Path("value"), help="folder for the results")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for question in arguments.questions:
        module = QUESTIONS[question]
        begin = time.process_time()
        rows = module.measure(arguments.folder, arguments.sets, arguments.seeds)
        seconds = time.process_time() - begin
        text = f"## {module.QUESTION}\n\n{markdown(rows)}\n{arguments.seeds} seeds, "
        text += f"{seconds:.0f} s of processor time.\n"
        print(text, flush=True)
        (arguments.output / f"{question}.md").write_text(text)
        (arguments.output / f"{question}.json").write_text(json.dumps(rows, indent=1) + "\n")
        figure = Figure(figsize=(7, 3.5), dpi=120, layout="constrained")
        module.plot(rows, figure.subplots())
        figure.savefig(arguments.output / f"{question}.png")


if __name__ == "__main__":
    main()
