"""Mutants that no test can notice, because something else refuses the same requests with the same answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .mutants import Mutant


@dataclass(frozen=True)
class Equivalent:
    """One check of which the hypervisor is as safe without; ``why``: what refuses in its place."""

    module: str
    function: str
    condition: str
    why: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.module, self.function, self.condition


EQUIVALENT: tuple[Equivalent, ...] = ()


def stale(known: Sequence[Equivalent], checked: Mapping[str, Sequence[Mutant]]) -> list[str]:
    """Entries whose check is not there any more."""
    there = {(name, mutant.function, mutant.condition) for name, found in checked.items() for mutant in found}
    return [f"{entry.module}: {entry.function}: {entry.condition}: is not there" for entry in known
            if entry.key not in there]  # fmt: skip
