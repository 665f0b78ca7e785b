"""The machine's pools of physical CPUs, with their names. Each schedules its domains by a policy of its own.

What can be done with pools, and what cannot, is as in Xen 4.17 (tools/libs/light/libxl_cpupool.c, and
hypervisor/views/pools.py). Names are nodes in xenstore, as there.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from paravirt.errors import HypervisorBug, UserError
from paravirt.hypervisor.views import pools
from paravirt.hypervisor.views.scheduler import POLICIES

if TYPE_CHECKING:
    from paravirt.domain0.toolstack.domain import Domain
    from paravirt.domain0.toolstack.machine import Machine

FIRST: Final = 0
"""The number of Pool-0, which every physical CPU is in at first, and Domain 0 always."""

_LOOKS: Final = 0.0002
_PATIENCE: Final = 60.0
"""Seconds between looks whether a physical CPU has let go of a domain, and for how long that can be looked for."""


@dataclass(frozen=True)
class Cpupool:
    """A pool, as it was at one moment.

    Attributes:
        id: its number.
        cpus: its physical CPUs.
        scheduler: the name of its policy.
        domains: how many it has, Domain 0 included.
    """

    id: int
    name: str
    cpus: tuple[int, ...]
    scheduler: str
    domains: int


class Cpupools:
    """The pools of one machine. Its methods may be called in any thread but Domain 0's."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._changing = threading.Lock()  # a change may take several steps

    def all(self) -> list[Cpupool]:
        """Every pool, by number."""
        with self._machine.host.lock:
            found = pools.pools(self._machine.host)
        return [
            Cpupool(row["id"], self._name(row["id"]), tuple(row["cpus"]), row["scheduler"], row["domains"])
            for row in found
        ]

    def free_cpus(self) -> list[int]:
        """The physical CPUs that are in no pool."""
        with self._machine.host.lock:
            return pools.free_cpus(self._machine.host)

    def find(self, qualifier: str | int) -> Cpupool:
        """The pool of this number or name; a text of digits is a number.

        Raises:
            UserError: there is none.
        """
        text = str(qualifier)
        number = int(text) if text.isascii() and text.isdigit() else None
        for pool in self.all():
            if pool.id == number or (number is None and pool.name == text):
                return pool
        raise UserError(f"There is no pool of physical CPUs {text!r}.")

    def create(self, name: str, scheduler: str, cpus: Iterable[int] = ()) -> Cpupool:
        """Make a pool, with these physical CPUs, which have to be free.

        Raises:
            UserError: there is a pool of that name, no such scheduler, one of the physical CPUs is not free, or there
                are as many pools as can be.
        """
        with self._changing:
            wanted = sorted(set(cpus))
            self.check(name, scheduler, wanted)
            with self._machine.host.lock:
                number = pools.create(self._machine.host, scheduler)
                for cpu in wanted:
                    pools.add_cpu(self._machine.host, number, cpu)
            self._announce(number, name)
            return self.find(number)

    def check(self, name: str, scheduler: str, cpus: Iterable[int]) -> None:
        """See whether such a pool could be made now.

        Raises:
            UserError: as :meth:`create`.
        """
        self._check_name(name)
        if scheduler not in POLICIES:
            raise UserError(f"There is no scheduler {scheduler!r}: {', '.join(POLICIES)} are.")
        taken = sorted(set(cpus) - set(self.free_cpus()))
        if taken:
            raise UserError(f"There is no physical CPU {taken[0]}, or it is not free.")

    def _check_name(self, name: str, but: int | None = None) -> None:
        """Refuse a name that a pool has, ``but`` for that one."""
        if any(pool.name == name and pool.id != but for pool in self.all()):
            raise UserError(f"There is a pool with the name {name!r} already.")

    def destroy(self, pool: Cpupool) -> None:
        """End a pool; its physical CPUs are free then.

        Raises:
            UserError: it has domains, or it is the first one.
        """
        with self._changing:
            if pool.id == FIRST:
                raise UserError(f"The pool {pool.name} is the first one, and stays.")
            if self.find(pool.id).domains:
                raise UserError(f"There are domains in the pool {pool.name}.")
            for cpu in self.find(pool.id).cpus:
                self._take_out(pool, cpu)
            with self._machine.host.lock:
                pools.destroy(self._machine.host, pool.id)
            self._machine.call(lambda: self._machine.store.remove(f"/local/pool/{pool.id}"))

    def rename(self, pool: Cpupool, name: str) -> None:
        """Give a pool another name.

        Raises:
            UserError: another one has it.
        """
        with self._changing:
            self._check_name(name, pool.id)
            self._machine.call(lambda: self._machine.store.set(f"/local/pool/{pool.id}/name", name))

    def add_cpu(self, pool: Cpupool, cpu: int) -> None:
        """Put a free physical CPU into a pool.

        Raises:
            UserError: there is no such physical CPU, or it is not free.
        """
        with self._changing, self._machine.host.lock:
            pools.add_cpu(self._machine.host, pool.id, cpu)

    def remove_cpu(self, pool: Cpupool, cpu: int) -> None:
        """Take a physical CPU out of a pool. It is free when this returns; domains that ran there run elsewhere.

        Raises:
            UserError: it is not in that pool, it is its last one and there are domains, or it is the physical CPU 0 and
                the pool is the first one.
        """
        with self._changing:
            self._take_out(pool, cpu)

    def migrate(self, domain: Domain, pool: Cpupool) -> None:
        """Move a domain into a pool, where it has the default parameters of scheduling, and all affinities.

        Raises:
            UserError: the pool has no physical CPUs, or the domain is gone.
        """
        def move() -> bool:
            return domain.control(lambda view: pools.move_domain(view, pool.id))

        with self._changing:
            if move():
                return
            domain.control(lambda view: view.pause_internally())
            try:
                self._wait(move)
            finally:
                with contextlib.suppress(UserError):  # it is gone
                    domain.control(lambda view: view.unpause_internally())

    def _take_out(self, pool: Cpupool, cpu: int) -> None:
        with self._machine.host.lock:
            pools.remove_cpu(self._machine.host, pool.id, cpu)
        self._wait(lambda: cpu in self.free_cpus())

    @staticmethod
    def _wait(done: Callable[[], bool]) -> None:
        """Wait for a physical CPU to let go of what it runs, which it does at once."""
        deadline = time.monotonic() + _PATIENCE
        while not done():
            if time.monotonic() > deadline:
                raise HypervisorBug("a physical CPU does not let go of a domain")
            time.sleep(_LOOKS)

    def _name(self, number: int) -> str:
        """A pool's name; before anybody gave it one, the first is called Pool-0."""
        name = self._machine.call(lambda: self._machine.store.get(f"/local/pool/{number}/name"))
        return f"Pool-{number}" if name is None else name.decode("utf-8", "replace")

    def _announce(self, number: int, name: str) -> None:
        def announce() -> None:
            self._machine.store.set(f"/local/pool/{number}/uuid", str(uuid.uuid4()))
            self._machine.store.set(f"/local/pool/{number}/name", name)

        self._machine.call(announce)
