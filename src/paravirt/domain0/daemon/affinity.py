"""On which physical CPUs the vcpus of a domain may run, and would rather run.

Where the engine does not run vcpus of one domain in parallel, the domain runs where all its vcpus may; if they have a
preference in common it runs there as long as that is possible. All that is within the domain's pool of physical CPUs:
others may be named, and count when the pool gets them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING

from paravirt.domain0.xlcfg.config import cpu_set
from paravirt.errors import UserError

if TYPE_CHECKING:
    from paravirt.domain0.toolstack import Domain

Cpus = frozenset[int]


@dataclass
class Affinity:
    """For each vcpu, where it may run (``hard``), and would rather (``soft``).

    Parameters:
        hard, soft: the texts of a configuration, one for each vcpu; those without one may run everywhere.
        vcpus: how many there are.
        pcpus: how many physical CPUs the machine has.
        parallel: the vcpus may run at the same time, each where it may.
        pool: those that the domain's pool has; by default, all.

    Raises:
        UserError: the pool has none of a text's physical CPUs, or there is none where all vcpus may run.
    """

    hard: list[Cpus] = field(init=False)
    soft: list[Cpus] = field(init=False)

    def __init__(
        self,
        hard: Iterable[str],
        soft: Iterable[str],
        vcpus: int,
        pcpus: int,
        parallel: bool = False,
        pool: Cpus | None = None,
    ) -> None:
        self._pcpus = pcpus
        self._parallel = parallel
        self._pool = frozenset(range(pcpus)) if pool is None else pool
        self.hard = self._of_all([self._existing(text) for text in hard], vcpus)
        self.soft = self._of_all([self._cpus(text) for text in soft], vcpus)
        self._check(self.hard)

    def _of_all(self, chosen: list[Cpus], vcpus: int) -> list[Cpus]:
        return chosen[:vcpus] + [frozenset(range(self._pcpus))] * (vcpus - len(chosen))

    def _cpus(self, text: str) -> Cpus:
        """Those of the machine's: a preference may be for none of them."""
        return cpu_set(text, self._pcpus) & frozenset(range(self._pcpus))

    def _existing(self, text: str) -> Cpus:
        wanted = self._cpus(text)
        if not wanted:
            raise UserError(f"The machine has physical CPUs 0 to {self._pcpus - 1}, and none of them is in {text!r}.")
        if not wanted & self._pool:
            raise UserError(f"The domain's pool has none of the physical CPUs {text}.")
        return wanted

    def change(self, vcpus: Iterable[int], hard: str, soft: str) -> None:
        """Change it for some vcpus; an empty text changes nothing.

        Raises:
            UserError: as above; then nothing has changed.
        """
        new_hard, new_soft = list(self.hard), list(self.soft)
        for vcpu in vcpus:
            if hard:
                new_hard[vcpu] = self._existing(hard)
            if soft:
                new_soft[vcpu] = self._cpus(soft)
        self._check(new_hard)
        self.hard, self.soft = new_hard, new_soft

    def follow(self, pool: Cpus) -> None:
        """The domain's pool has other physical CPUs than before: a vcpu that could run on none of them may run on all,
        as in Xen; and so may all vcpus if they need one where all may, and there is none."""
        self._pool = pool
        everywhere = frozenset(range(self._pcpus))
        self.hard = [cpus if cpus & pool else everywhere for cpus in self.hard]
        if not self._parallel and not reduce(Cpus.__and__, self.hard) & pool:
            self.hard = [everywhere] * len(self.hard)

    def forget(self, pool: Cpus) -> None:
        """The domain is in another pool, with these physical CPUs: there its vcpus may run on all, as in Xen."""
        self._pool = pool
        self.hard = [frozenset(range(self._pcpus))] * len(self.hard)
        self.soft = list(self.hard)

    def _check(self, hard: list[Cpus]) -> None:
        if not self._parallel:
            self._common(hard)

    def pin(self, domain: Domain) -> None:
        """Tell the domain."""
        if self._parallel:
            for vcpu, (hard, soft) in enumerate(zip(self.hard, self.soft, strict=True)):
                domain.pin(*_of_both(hard, soft), vcpu)
        else:
            domain.pin(*self.of_domain())

    def of_domain(self) -> tuple[Cpus, Cpus]:
        """Where the domain may run as a whole, and where it would rather (nothing: no matter)."""
        return _of_both(self._common(self.hard), reduce(Cpus.__and__, self.soft))

    def _common(self, hard: list[Cpus]) -> Cpus:
        common = reduce(Cpus.__and__, hard)
        if not common & self._pool:
            raise UserError("The vcpus of a domain share a physical CPU here: there must be one on which all may run.")
        return common


def _of_both(hard: Cpus, soft: Cpus) -> tuple[Cpus, Cpus]:
    soft &= hard
    return hard, soft if soft != hard else frozenset()
