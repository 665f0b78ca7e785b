"""A hypervisor with one guest whose kernel is the test: it makes hypercalls by calling their Python handlers.

Host, domains, frames and page tables are the real ones; only the engine is made up, since nothing executes. The
guest's address ``n`` is byte ``n`` of its pseudo-physical memory; its first frames are its page tables.
"""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np

from paravirt.hypervisor.hypercalls.registry import HypercallContinuation, HypercallError, handlers
from paravirt.hypervisor.views import Domain, Host, Vcpu
from paravirt.machine.memory import Memory

from .. import native

PAGES = 480
TABLES = 4  # frames 0 to 3: L4, L3, L2, L1
FIRST_FREE = 16
UNMAPPED = 0x7000_0000_0000
"""An address of the guest's with nothing behind it."""
OF_XEN = 0xFFFF_8000_0000_0000
"""An address in the hypervisor's range."""
MAX_CONTINUATIONS = 10_000


class World:
    """See above.

    Args:
        frames: the machine's memory, in frames.

    Attributes:
        continuations: how often a hypercall was preempted so far.
    """

    def __init__(self, frames: int = 2048) -> None:
        self._ops = native.Machine(frames=16)
        self._add("store_pte", [None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64], _store_pte)
        self._add("free_state", [None, ctypes.c_void_p, ctypes.c_void_p], lambda *_: None)
        engine = SimpleNamespace(ops_address=native.address(self._ops.ops), handle=1)
        self.memory = Memory(frames)
        self.host = Host(self.memory, [engine], virtual_clock=True)
        self.continuations = 0
        self._next = FIRST_FREE
        self.service = self.host.create_service_domain()
        self.domain = self.create(1)
        self.vcpu: Vcpu = self.domain.vcpus[0]

    def _add(self, name: str, kinds: list[Any], call: Any) -> None:
        pointer = ctypes.CFUNCTYPE(*kinds)(call)
        self._ops.keep(pointer)
        setattr(self._ops.ops, name, ctypes.cast(pointer, ctypes.c_void_p).value)

    def create(self, domid: int) -> Domain:
        """A domain of 480 frames and two vcpus, the first of which is up."""
        domain = self.host.create_domain(domid, PAGES, 2)
        for upper in range(TABLES - 1):
            domain.write(upper, 0, (self._entry(domain, upper + 1) | 7).to_bytes(8, "little"))
        entries = np.array([self._entry(domain, pfn) | 7 for pfn in range(PAGES)], dtype=np.uint64)
        entries[:TABLES] = [self._entry(domain, pfn) | 5 for pfn in range(TABLES)]
        domain.write(TABLES - 1, 0, entries.tobytes())
        domain.pin_l4(0)
        domain.set_context(rip=0, rsp=0, rsi=0, cr3_pfn=0)
        return domain

    @staticmethod
    def _entry(domain: Domain, pfn: int) -> int:
        return int(domain.p2m[pfn]) << 12

    def mfn(self, address: int) -> int:
        """The machine frame behind a guest address."""
        return int(self.domain.p2m[address >> 12])

    def page(self, count: int = 1) -> int:
        """The address of unused, zeroed, consecutive guest frames."""
        address = self._next << 12
        self._next += count
        assert self._next <= PAGES
        return address

    def put(self, data: bytes | ctypes.Structure) -> int:
        """Put something into the guest's memory: its address."""
        raw = bytes(data)
        address = self.page(max(1, -(-len(raw) // 4096)))
        self.vcpu.copy_to_guest(address, raw)
        return address

    def get(self, address: int, size: int) -> bytes:
        """What stands in the guest's memory."""
        return self.vcpu.copy_from_guest(address, size)

    def numbers(self, address: int, count: int) -> list[int]:
        """A list of 64-bit numbers in the guest's memory."""
        raw = self.get(address, 8 * count)
        return [int.from_bytes(raw[at : at + 8], "little") for at in range(0, len(raw), 8)]

    def put_numbers(self, values: list[int]) -> int:
        """Put a list of 64-bit numbers into the guest's memory: its address."""
        return self.put(b"".join(value.to_bytes(8, "little") for value in values))

    def call(self, number: int, *args: int) -> int:
        """Make a hypercall, and make it again while it asks for that: what is in rax then."""
        words = [arg & (1 << 64) - 1 for arg in args]
        for _attempt in range(MAX_CONTINUATIONS):
            try:
                return handlers()[number](self.vcpu, *words, *[0] * (6 - len(words)))
            except HypercallError as error:
                return -error.errno
            except HypercallContinuation as more:
                self.continuations += 1
                words[: len(more.arguments)] = more.arguments
        raise AssertionError(f"hypercall {number} does not end: {words}")


def _store_pte(engine: int, entry: int, value: int) -> None:
    ctypes.c_uint64.from_address(entry).value = value
