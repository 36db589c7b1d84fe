"""What ASE loads through the entry point ``ase.plugins``; an error would break ``ase info``."""

from __future__ import annotations

from typing import Any

__ase_plugins__: set[Any] = set()

try:
    from ase._4.plugins.plugin import CalculatorPlugin

    __ase_plugins__.add(
        CalculatorPlugin(
            "sensitivity",
            implementation="ase_sensitivity.md.calculator.SensitivityCalculator",
        )
    )
except Exception:  # ASE calls its plugins experimental: with others there is nothing to register
    pass
