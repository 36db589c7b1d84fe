"""Runs inputs by the thousand in processes of their own: one that dies or hangs costs itself only.

A module of tests that draws inputs by their numbers ends with ``serve(judge)``.
"""

from __future__ import annotations

import faulthandler
import json
import resource
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

SECONDS = 60.0
"""An input that takes longer hangs."""

MEMORY = 6 * 2**30
"""Bytes that a process may address."""

ROOT = Path(__file__).parents[1]


def findings(module: str, numbers: range, directory: Path) -> list[str]:
    """What is wrong with the inputs of these numbers, a line for each that has a fault."""
    found = []
    start = numbers.start
    while start < numbers.stop:
        log = directory / f"{start}.log"
        arguments = [sys.executable, "-m", module, str(start), str(numbers.stop), str(log)]
        process = subprocess.run(arguments, capture_output=True, text=True, cwd=ROOT, check=False)
        lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        assert lines, process.stderr  # it could not even begin
        found += [f"{module} {number}: {fault}" for number, fault in lines if fault]
        last, fault = lines[-1]
        if fault is None:  # begun and not finished
            told = process.stderr[-3000:]
            found.append(f"{module} {last}: ended the process ({process.returncode}): {told}")
        start = last + 1
    return found


def serve(judge: Callable[[int], str]) -> None:
    """Judge the inputs that the command line asks for; what is wrong goes to a file.

    Parameters
    ----------
    judge
        Takes a number, gives what is wrong with it or nothing. An exception is wrong.
    """
    start, stop, log = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", RuntimeWarning)
    with open(log, "a") as file:
        for number in range(start, stop):
            print(json.dumps([number, None]), file=file, flush=True)
            faulthandler.dump_traceback_later(SECONDS, exit=True)
            try:
                fault = judge(number)
            except BaseException:
                fault = traceback.format_exc(limit=-4)
            faulthandler.cancel_dump_traceback_later()
            print(json.dumps([number, fault]), file=file, flush=True)
