"""A host, a domain and a vcpu in plain Python: what the rare hypercalls see of the compiled ones, and no more."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from paravirt.abi.errno import EBUSY, EFAULT, EINVAL, ENODEV, EPERM
from paravirt.abi.xen import DOMID_SELF, DOMID_XEN
from paravirt.errors import UserError
from paravirt.hypervisor.hypercalls.registry import HypercallContinuation, HypercallError, handlers
from paravirt.hypervisor.hypercalls.state import DomainState

FRAME = 4096
FREE = 0x7FF4
ALLOCATED, XEN, KEPT = 1, 8, 128
WRITABLE, L1 = 7, 1
WORD = 0xFFFF_FFFF_FFFF_FFFF
BAD = 0x1234_5000  # an address that is never mapped

_Layout = TypeVar("_Layout", bound=ctypes.Structure)


@dataclass
class FakeFrame:
    owner: int = FREE
    type: int = 0
    type_refs: int = 0
    refs: int = 0
    flags: int = 0


class FakeMemory:
    """Machine memory by address."""

    def __init__(self, frames: int) -> None:
        self._bytes = bytearray(frames * FRAME)

    def read(self, address: int, length: int) -> bytes:
        assert 0 <= address <= address + length <= len(self._bytes)
        return bytes(self._bytes[address : address + length])

    def write(self, address: int, data: bytes) -> None:
        assert 0 <= address <= address + len(data) <= len(self._bytes)
        self._bytes[address : address + len(data)] = data

    def clear(self, mfn: int) -> None:
        self.write(mfn * FRAME, bytes(FRAME))


class FakeHost:
    def __init__(self, frames: int = 2048) -> None:
        self.nr_frames = frames
        self.memory = FakeMemory(frames)
        self.frames = [FakeFrame() for _ in range(frames)]
        self.frames[0] = FakeFrame(owner=0x7FF1, refs=1)
        self.table: dict[int, int] = {}
        self.domains: dict[int, FakeDomain] = {}
        self.zombies: dict[int, FakeDomain] = {}
        self.m2p_mfn = frames - 4
        self.m2p_slot = 256
        self.time = 123_456_789
        self.is_spent = False
        self.work = 0
        self.invalidated: list[tuple[int, int]] = []

    def invalidate_code(self, start: int, end: int) -> None:
        self.invalidated.append((start, end))

    def now(self) -> int:
        return self.time

    def m2p(self, mfn: int) -> int:
        return self.table.get(mfn, WORD)

    def set_m2p(self, mfn: int, pfn: int) -> None:
        self.table[mfn] = pfn & WORD

    def owner_of(self, mfn: int) -> int:
        return self.frames[mfn].owner

    def frame_info(self, mfn: int) -> tuple[int, int, int, int, int]:
        frame = self.frames[mfn]
        return frame.owner, frame.type, frame.type_refs, frame.refs, frame.flags

    def find(self, domid: int) -> FakeDomain | None:
        return self.domains.get(domid) or self.zombies.get(domid)

    def reap(self) -> None:
        owners = {frame.owner for frame in self.frames}
        self.zombies = {domid: domain for domid, domain in self.zombies.items() if domid in owners}

    @contextmanager
    def quiesced(self, domain: FakeDomain) -> Iterator[None]:
        yield

    def compare_exchange(self, address: int, old: int, new: int) -> int:
        found = int.from_bytes(self.memory.read(address, 4), "little")
        if found == old:
            self.memory.write(address, new.to_bytes(4, "little"))
        return found

    def spend(self, units: int) -> None:
        self.work += units

    def read_number(self, address: int, size: int) -> int:
        return int.from_bytes(self.memory.read(address, size), "little")

    def copy_memory(self, target: int, source: int, length: int) -> None:
        self.memory.write(target, self.memory.read(source, length))

    def _change(self, address: int, clear: int, set: int) -> None:
        found = int.from_bytes(self.memory.read(address, 2), "little")
        self.memory.write(address, (found & ~clear | set).to_bytes(2, "little"))

    def clear_bits(self, address: int, bits: int) -> None:
        self._change(address, bits, 0)

    def set_bits(self, address: int, bits: int) -> None:
        self._change(address, 0, bits)

    def get_page(self, mfn: int, domid: int) -> bool:
        if mfn >= self.nr_frames or self.frames[mfn].owner != domid or not self.frames[mfn].refs:
            return False
        self.frames[mfn].refs += 1
        return True

    def get_page_and_type(self, mfn: int, domid: int, type: int) -> int:
        if mfn >= self.nr_frames or self.frames[mfn].owner != domid:
            return -EINVAL
        frame = self.frames[mfn]
        if frame.type_refs and frame.type != type:
            return -EINVAL
        frame.type = type
        frame.type_refs += 1
        frame.refs += 1
        return 0

    def put_page_and_type(self, mfn: int) -> None:
        self.frames[mfn].type_refs -= 1
        self.put_page(mfn)

    def put_page(self, mfn: int) -> None:
        frame = self.frames[mfn]
        frame.refs -= 1
        if frame.refs == 0 and frame.flags & KEPT:
            self.frames[mfn] = FakeFrame(DOMID_XEN, refs=1, flags=ALLOCATED | XEN)
        elif frame.refs == 0:
            if frame.owner in self.domains and not frame.flags & XEN:
                self.domains[frame.owner].tot_pages -= 1
            self.frames[mfn] = FakeFrame()
            self.table.pop(mfn, None)

    def references(self) -> list[tuple[int, int]]:
        """(references, type references) of every frame: to see that a call gave back what it took."""
        return [(frame.refs, frame.type_refs) for frame in self.frames]


class FakeDomain:
    def __init__(self, host: FakeHost, domid: int, pages: int = 64, *, is_privileged: bool = False) -> None:
        self.host = host
        self.domid = domid
        self.is_privileged = is_privileged
        self.state = DomainState()
        self.vm_assist = 0
        self.grant_version = 1
        self.tot_pages = 0
        self.max_pages = pages + 32
        self.console = b""
        self.is_dying = False
        self.flushes = 0
        self.pirq_eoi_mfn: int | None = None
        host.domains[domid] = self
        self.shared_info_mfn = self.share_frame()
        self.vcpus = [FakeVcpu(self)]
        self.mfns = [self._need(self.alloc_extent(0)) for _ in range(pages)]
        for pfn, mfn in enumerate(self.mfns):
            host.set_m2p(mfn, pfn)

    @staticmethod
    def _need(mfn: int | None) -> int:
        assert mfn is not None
        return mfn

    def console_write(self, data: bytes) -> None:
        self.console += data

    def _find(self, count: int, end: int) -> int | None:
        frames = self.host.frames
        for first in range(0, end - count + 1, count):
            if all(frames[mfn].owner == FREE for mfn in range(first, first + count)):
                return first
        return None

    def alloc_extent(self, order: int, *, address_bits: int = 0, beyond_limit: bool = False) -> int | None:
        count = 1 << order
        end = self.host.m2p_mfn
        if address_bits:
            end = min(end, (1 << address_bits) // FRAME)
        if not beyond_limit and self.tot_pages + count > self.max_pages:
            return None
        first = self._find(count, end)
        if first is None:
            return None
        for mfn in range(first, first + count):
            self.host.frames[mfn] = FakeFrame(self.domid, refs=1, flags=ALLOCATED)
            self.host.memory.clear(mfn)
        self.tot_pages += count
        return first

    def share_frame(self) -> int:
        mfn = self._find(1, self.host.m2p_mfn)
        if mfn is None:
            raise UserError("The machine has no free memory left.")
        self.host.frames[mfn] = FakeFrame(self.domid, WRITABLE, 1, 1, ALLOCATED | XEN | KEPT)
        return mfn

    def unshare_frame(self, mfn: int) -> None:
        frame = self.host.frames[mfn]
        if frame.owner == self.domid and frame.flags & KEPT:
            frame.flags &= ~KEPT
            frame.type_refs -= 1
        if frame.flags & ALLOCATED:
            frame.flags &= ~ALLOCATED
            self.host.put_page(mfn)

    def steal_frame(self, mfn: int) -> bool:
        if mfn >= self.host.nr_frames:
            return False
        frame = self.host.frames[mfn]
        if frame.owner != self.domid or frame.flags & XEN or not frame.flags & ALLOCATED or frame.refs != 1:
            return False
        self.host.frames[mfn] = FakeFrame(DOMID_XEN, refs=1, flags=ALLOCATED)
        self.tot_pages -= 1
        return True

    def assign_frame(self, mfn: int) -> None:
        self.host.frames[mfn].owner = self.domid
        self.tot_pages += 1

    def flush_tlb(self) -> None:
        self.flushes += 1

    def release_page(self, mfn: int) -> bool:
        frame = self.host.frames[mfn]
        if frame.owner != self.domid or not frame.flags & ALLOCATED:
            return False
        frame.flags &= ~ALLOCATED
        self.host.put_page(mfn)
        return True

    def set_pirq_eoi_map(self, mfn: int) -> int:
        if self.host.get_page_and_type(mfn, self.domid, WRITABLE) != 0:
            return -EINVAL
        if self.pirq_eoi_mfn is not None:
            self.host.put_page_and_type(mfn)
            return -EBUSY
        self.pirq_eoi_mfn = mfn
        return 0


@dataclass
class FakeVcpu:
    """A vcpu whose guest memory is a few mapped pages: address of the page to its bytes."""

    domain: FakeDomain
    id: int = 0
    iopl: int = 0
    pages: dict[int, bytearray] = field(default_factory=dict)
    read_only: set[int] = field(default_factory=set)
    traps: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    callbacks: dict[int, tuple[int, int]] = field(default_factory=dict)
    io_bitmap: tuple[int, int] | None = None
    debugregs: dict[int, int] = field(default_factory=dict)
    continuations: int = 0
    refusals: list[tuple[int, int]] = field(default_factory=list)
    _next: int = 0x10_0000

    def note_refusal(self, how: int, answer: int, arguments: tuple[int, ...], mfn: int | None = None) -> None:
        """What a report on a crash would have: the answers."""
        self.refusals.append((how, answer))

    def map(self, size: int = FRAME, *, writable: bool = True) -> int:
        """Map so many bytes of fresh guest memory; an unmapped page follows them."""
        start = self._next
        for page in range(start, start + size, FRAME):
            self.pages[page] = bytearray(FRAME)
            if not writable:
                self.read_only.add(page)
            self._next = page + FRAME
        self._next += FRAME
        return start

    def put(self, data: bytes | ctypes.Structure, *, at_end: bool = False, writable: bool = True) -> int:
        """The address of fresh guest memory that holds ``data``; at_end: what follows it is not mapped."""
        raw = bytes(data)
        size = -(-max(len(raw), 1) // FRAME) * FRAME
        address = self.map(size, writable=writable) + (size - len(raw) if at_end else 0)
        for at, value in enumerate(raw):
            self.pages[(address + at) & ~(FRAME - 1)][(address + at) % FRAME] = value
        return address

    def frame_list(self, *mfns: int) -> int:
        """The address of a list of 64-bit frame numbers."""
        return self.put(b"".join(mfn.to_bytes(8, "little") for mfn in mfns))

    def numbers(self, address: int, count: int) -> list[int]:
        raw = self.copy_from_guest(address, 8 * count)
        return [int.from_bytes(raw[at : at + 8], "little") for at in range(0, len(raw), 8)]

    def _page(self, address: int, write: bool) -> bytearray:
        page = address & ~(FRAME - 1)
        if page not in self.pages or (write and page in self.read_only):
            raise HypercallError(EFAULT)
        return self.pages[page]

    def copy_from_guest(self, va: int, size: int) -> bytes:
        return bytes(self._page(at, False)[at % FRAME] for at in range(va, va + size))

    def copy_to_guest(self, va: int, data: bytes) -> None:
        for at, value in enumerate(data, va):
            self._page(at, True)[at % FRAME] = value

    def read_struct(self, va: int, layout: type[_Layout]) -> _Layout:
        return layout.from_buffer_copy(self.copy_from_guest(va, ctypes.sizeof(layout)))

    def write_struct(self, va: int, value: ctypes.Structure) -> None:
        self.copy_to_guest(va, bytes(value))

    def set_trap(self, vector: int, cs: int, flags: int, address: int) -> None:
        self.traps[vector] = (cs, flags, address)

    def set_callback(self, type: int, address: int, flags: int) -> bool:
        self.callbacks[type] = (address, flags)
        return True

    def set_io_bitmap(self, address: int, ports: int) -> None:
        self.io_bitmap = (address, ports)

    def set_debugreg(self, number: int, value: int) -> int:
        if number > 7:
            return -ENODEV
        if number < 4 and value >> 47:
            return -EPERM
        self.debugregs[number] = value
        return 0

    def get_debugreg(self, number: int) -> int | None:
        return self.debugregs.get(number, 0) if number < 8 else None

    def call(self, number: int, *args: int) -> int:
        """Make a hypercall as the guest does, going on with a preempted one until it ends: what it gets in rax."""
        padded = [arg & WORD for arg in args] + [0] * (6 - len(args))
        while True:
            try:
                return handlers()[number](self, *padded)
            except HypercallError as error:
                assert 0 < error.errno < 200
                return -error.errno
            except HypercallContinuation as more:
                padded = [arg & WORD for arg in more.arguments] + padded[len(more.arguments) :]
                self.continuations += 1


@contextmanager
def nothing_kept(host: FakeHost) -> Iterator[None]:
    """What is done inside takes no reference of any frame for good."""
    before = host.references()
    yield
    assert host.references() == before


SELF = DOMID_SELF
