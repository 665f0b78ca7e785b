"""The FIFO ABI: a guest that keeps the rules loses no event; one that breaks them harms only itself."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paravirt.abi import errno, event_channel

from . import native
from .native import Machine
from .test_events import Shared, enter_guest, fresh

events = native.functions("events")
fifo = native.functions("events_fifo")

PENDING = 1 << event_channel.EVTCHN_FIFO_PENDING
MASKED = 1 << event_channel.EVTCHN_FIFO_MASKED
LINKED = 1 << event_channel.EVTCHN_FIFO_LINKED
BUSY = 1 << event_channel.EVTCHN_FIFO_BUSY
LINK = event_channel.EVTCHN_FIFO_LINK_MASK
BLOCK = event_channel.EvtchnFifoControlBlock
L4, WRITABLE = 4, 7


class Fifo:
    """The guest's side: its event words and control blocks, and how it consumes them."""

    def __init__(self, machine: Machine, vcpus: int = 1, *, max_ports: int = 1024, pages: int = 1) -> None:
        self.machine = machine
        self.guest = fresh(machine, vcpus=vcpus, max_ports=max_ports)
        self.at = self.guest.at
        self.control: list[Any] = []
        self.frames: list[int] = []
        for vcpu in self.guest.vcpu:
            mfn = machine.alloc(1)
            assert fifo.fifo_init_control(self.at, vcpu.at, mfn, 64) == 0
            self.control.append(BLOCK.from_address(machine.host.memory + (mfn << 12) + 64))
            self.frames.append(mfn)
        self.arrays: list[Any] = []
        for _ in range(pages):
            assert self.add_page() == 0

    def add_page(self) -> int:
        mfn = self.machine.alloc(1)
        self.arrays.append((ctypes.c_uint32 * 1024).from_address(self.machine.host.memory + (mfn << 12)))
        self.frames.append(mfn)
        return int(events.expand_array(self.at, mfn))

    def get(self, port: int) -> int:
        return int(self.arrays[port // 1024][port % 1024])

    def put(self, port: int, word: int) -> None:
        self.arrays[port // 1024][port % 1024] = word

    def send(self, port: int) -> None:
        assert events.evtchn_send(self.machine.at, self.at, port) == 0

    def take_upcall(self, vcpu: int = 0) -> bool:
        """Whether an upcall was pending; it is not any more."""
        info = Shared(self.guest).info(vcpu)
        taken = bool(info.evtchn_upcall_pending)
        info.evtchn_upcall_pending = 0
        return taken

    def drain(self, vcpu: int = 0) -> list[tuple[int, int]]:
        """Take all events out as the header tells guests to: (queue, port) of those delivered, in order."""
        control = self.control[vcpu]
        ready, control.ready = control.ready, 0
        taken = []
        for queue in (q for q in range(16) if ready >> q & 1):
            head = control.head[queue]
            while head:
                word = self.get(head)
                self.put(head, word & ~(LINKED | LINK))
                if word & PENDING and not word & MASKED:
                    self.put(head, self.get(head) & ~PENDING)
                    taken.append((queue, head))
                head = word & LINK
        return taken

    def end(self) -> None:
        native.destroy_ports(self.at)
        assert all(self.machine.frames[mfn].type_refs == 0 for mfn in self.frames)
        assert all(self.machine.frames[mfn].refs == 1 for mfn in self.frames)


@pytest.fixture
def machine() -> Iterator[Machine]:
    made = Machine(frames=256)
    yield made
    made.close()


# --- setting it up ------------------------------------------------------------------------------------------


def test_the_first_control_block_takes_the_domain_over(machine: Machine) -> None:
    guest = fresh(machine, vcpus=2)
    vcpu = guest.vcpu[0].at
    mfn, array = machine.alloc(1), machine.alloc(1)
    foreign, table = machine.alloc(2), machine.alloc(1)
    machine.frames[table].type, machine.frames[table].type_refs = L4, 1
    early = [events.bind_ipi(guest.at, 0) for _ in range(2)]
    Shared(guest).set_mask(early[0], True)
    for port in early:
        events.evtchn_send(machine.at, guest.at, port)
    guest.vcpu[0].take_event()
    Shared(guest).set_pending(early[0], True)
    assert events.expand_array(guest.at, array) == -errno.EOPNOTSUPP
    for frame, offset in ((mfn, 4), (mfn, 4096 - 64), (mfn, 1 << 31), (1 << 40, 0), (foreign, 0), (table, 0)):
        assert fifo.fifo_init_control(guest.at, vcpu, frame, offset) == -errno.EINVAL
        assert guest.rec.fifo == 0
    assert fifo.fifo_init_control(guest.at, vcpu, mfn, 4096 - 72) == 0
    assert (guest.rec.fifo, machine.frames[mfn].type, machine.frames[mfn].type_refs) == (1, WRITABLE, 1)
    assert fifo.fifo_init_control(guest.at, vcpu, mfn, 0) == -errno.EINVAL
    for frame in (1 << 40, foreign, table):
        assert events.expand_array(guest.at, frame) == -errno.EINVAL
    assert events.expand_array(guest.at, array) == 0
    # What was pending before is so again, and in its queue: words are unmasked until the guest masks them.
    words = (ctypes.c_uint32 * 1024).from_address(machine.host.memory + (array << 12))
    assert [words[port] for port in (0, *early)] == [0, PENDING | LINKED, 0]
    control = BLOCK.from_address(machine.host.memory + (mfn << 12) + 4096 - 72)
    assert (control.ready, control.head[7]) == (1 << 7, early[0])
    assert Shared(guest).info().evtchn_upcall_pending == 1
    native.destroy_ports(guest.at)
    assert (guest.rec.fifo, machine.frames[mfn].type_refs, machine.frames[array].type_refs) == (0, 0, 0)
    assert (machine.frames[mfn].refs, machine.frames[array].refs) == (1, 1)


def test_an_event_without_a_word_waits_for_its_page(machine: Machine) -> None:
    guest = Fifo(machine, max_ports=4000)
    ports = [events.bind_ipi(guest.at, 0) for _ in range(3000)]
    for port in (1023, 1024, 2048):
        assert ports[port - 1] == port
        guest.send(port)
    assert guest.drain() == [(7, 1023)]
    assert guest.add_page() == 0
    assert guest.drain() == [(7, 1024)]
    # A port that was closed in between does not come back.
    guest.send(2049)
    assert events.close_port(guest.at, 2049) == 0
    assert guest.add_page() == 0
    assert guest.drain() == [(7, 2048)]
    guest.end()


def test_there_are_words_for_all_ports_and_not_more() -> None:
    machine = Machine(frames=300)
    guest = Fifo(machine, max_ports=200_000, pages=128)
    spare = machine.alloc(1)
    assert events.expand_array(guest.at, spare) == -errno.ENOSPC
    assert machine.frames[spare].type_refs == 0
    guest.guest.rec.max_ports = 64
    guest.end()
    machine.close()


# --- queues -------------------------------------------------------------------------------------------------


def test_events_come_in_order_and_by_priority(machine: Machine) -> None:
    guest = Fifo(machine)
    a, b, c = ports = [events.bind_ipi(guest.at, 0) for _ in range(3)]
    for port in (b, a, b, c):
        guest.send(port)
    assert [guest.get(port) & ~LINK for port in ports] == [PENDING | LINKED] * 3
    assert [guest.get(port) & LINK for port in ports] == [c, a, 0]
    assert guest.take_upcall()
    assert guest.drain() == [(7, b), (7, a), (7, c)]
    for port, priority in zip(ports, (15, 0, 3), strict=True):
        assert events.set_priority(guest.at, port, priority) == 0
        guest.send(port)
    assert guest.control[0].ready == 1 << 15 | 1 << 0 | 1 << 3
    assert guest.drain() == [(0, b), (3, c), (15, a)]
    assert events.set_priority(guest.at, a, 16) == -errno.EINVAL
    assert events.set_priority(guest.at, 60, 16) == -errno.EACCES
    assert events.set_priority(guest.at, 0, 1) == -errno.EACCES
    assert events.set_priority(guest.at, 64, 1) == -errno.EINVAL
    guest.end()


def test_a_masked_event_waits_for_unmask(machine: Machine) -> None:
    guest = Fifo(machine)
    port = events.bind_ipi(guest.at, 0)
    guest.put(port, MASKED)
    guest.send(port)
    assert guest.get(port) == PENDING | MASKED
    assert not guest.take_upcall()
    assert events.unmask(guest.at, port) == 0
    assert guest.get(port) == PENDING | LINKED
    assert guest.take_upcall()
    assert guest.drain() == [(7, port)]
    assert events.unmask(guest.at, port) == 0
    assert guest.get(port) == 0
    guest.end()


def test_one_upcall_until_the_guest_has_seen_that_the_queue_is_ready(machine: Machine) -> None:
    guest = Fifo(machine)
    a, b = (events.bind_ipi(guest.at, 0) for _ in range(2))
    guest.send(a)
    assert guest.take_upcall()
    guest.send(b)
    assert not guest.take_upcall()
    assert guest.drain() == [(7, a), (7, b)]
    guest.send(b)
    assert guest.take_upcall()
    guest.end()


def test_a_port_that_changed_queues_is_not_the_old_ones_tail(machine: Machine) -> None:
    guest = Fifo(machine)
    a, b = (events.bind_ipi(guest.at, 0) for _ in range(2))
    guest.send(a)
    assert guest.drain() == [(7, a)]
    events.set_priority(guest.at, a, 2)
    guest.send(a)
    # Queue 7 is empty, though its last port is linked again: elsewhere.
    guest.send(b)
    assert guest.get(a) == PENDING | LINKED
    assert guest.drain() == [(2, a), (7, b)]
    guest.end()


def test_a_port_that_changed_vcpus_is_not_the_old_ones_tail(machine: Machine) -> None:
    guest = Fifo(machine, vcpus=2)
    shared = events.alloc_unbound(guest.at, 1)
    loop = events.bind_interdomain(guest.at, 1, shared)
    ipi = events.bind_ipi(guest.at, 0)
    guest.drain()
    guest.send(loop)
    assert guest.drain(0) == [(7, shared)]
    assert events.bind_vcpu(guest.at, shared, 1) == 0
    guest.send(loop)
    guest.send(ipi)
    assert guest.drain(0) == [(7, ipi)]
    assert guest.drain(1) == [(7, shared)]
    guest.end()


def test_a_closed_port_that_is_still_queued_is_not_given_out(machine: Machine) -> None:
    guest = Fifo(machine)
    a = events.bind_ipi(guest.at, 0)
    guest.send(a)
    assert events.close_port(guest.at, a) == 0
    assert guest.get(a) == LINKED
    assert events.bind_ipi(guest.at, 0) == a + 1
    assert guest.drain() == []
    assert events.bind_ipi(guest.at, 0) == a
    guest.end()


def test_without_its_control_block_a_vcpu_only_has_the_bit(machine: Machine) -> None:
    guest = Fifo(machine, vcpus=2)
    guest.guest.vcpu[1].rec.fifo_control = 0
    port = events.bind_ipi(guest.at, 1)
    guest.send(port)
    assert guest.get(port) == PENDING
    assert not guest.take_upcall(1)
    assert events.is_pending(guest.at, port)
    native.destroy_ports(guest.at)


def test_unmasking_a_port_that_has_no_word_yet_is_nothing(machine: Machine) -> None:
    guest = Fifo(machine, pages=0)
    port = events.bind_ipi(guest.at, 0)
    guest.send(port)
    assert events.unmask(guest.at, port) == 0
    assert not events.is_pending(guest.at, port)
    assert guest.add_page() == 0
    assert guest.drain() == [(7, port)]
    guest.end()


def test_posted_events_enter_the_queues_at_the_next_exit(machine: Machine) -> None:
    guest = Fifo(machine)
    a, b = (events.bind_ipi(guest.at, 0) for _ in range(2))
    enter_guest(machine, guest.guest)
    guest.send(b)
    guest.send(a)
    assert (guest.get(a), guest.get(b), guest.control[0].ready) == (0, 0, 0)
    guest.guest.vcpu[0].rec.on_cpu = 0
    events.apply_posted(guest.at)
    assert sorted(guest.drain()) == [(7, a), (7, b)]
    guest.end()


def test_a_reset_forgets_the_queues(machine: Machine) -> None:
    guest = Fifo(machine)
    port = events.bind_ipi(guest.at, 0)
    guest.send(port)
    events.reset_ports(guest.at)
    assert (guest.guest.rec.fifo, guest.guest.rec.fifo_array_pages) == (0, 0)
    assert guest.guest.vcpu[0].rec.fifo_queue[7].tail == 0
    # The two-level ABI works, and so does a second change to this one.
    port = events.bind_ipi(guest.at, 0)
    guest.send(port)
    assert Shared(guest.guest).is_pending(port)
    Shared(guest.guest).set_pending(port, False)
    again = Fifo.__new__(Fifo)
    again.__dict__.update(guest.__dict__)
    again.arrays, again.frames = [], [*guest.frames, machine.alloc(1)]
    assert fifo.fifo_init_control(guest.at, guest.guest.vcpu[0].at, again.frames[-1], 0) == 0
    again.control = [BLOCK.from_address(machine.host.memory + (again.frames[-1] << 12))]
    assert again.add_page() == 0
    again.send(port)
    assert again.drain() == [(7, port)]
    again.end()


# --- any guest ----------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["send", "send", "mask", "unmask", "unmask by hand", "priority", "drain"]),
            st.integers(0, 4),
            st.integers(0, 3),
        ),
        max_size=80,
    )
)
def test_no_event_is_lost_or_made_up(steps: list[tuple[str, int, int]]) -> None:
    machine = Machine(frames=64)
    guest = Fifo(machine)
    ports = [events.bind_ipi(guest.at, 0) for _ in range(5)]
    waiting: set[int] = set()
    for step, which, number in steps:
        port = ports[which]
        if step == "send":
            guest.send(port)
            waiting.add(port)
        elif step == "mask":
            guest.put(port, guest.get(port) | MASKED)
        elif step == "unmask":
            assert events.unmask(guest.at, port) == 0
        elif step == "unmask by hand":
            # The header's rule: clear the bit; if the event is pending, leave the rest to the hypervisor.
            if guest.get(port) & PENDING:
                assert events.unmask(guest.at, port) == 0
            else:
                guest.put(port, guest.get(port) & ~MASKED)
        elif step == "priority":
            assert events.set_priority(guest.at, port, number) == 0
        else:
            due = {p for p in waiting if not guest.get(p) & MASKED}
            assert guest.take_upcall() or not due
            taken = [port for _, port in guest.drain()]
            assert len(set(taken)) == len(taken)
            assert set(taken) == due
            waiting -= due
        assert {p for p in ports if guest.get(p) & PENDING} == waiting
    guest.end()
    machine.close()


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("word"), st.integers(0, 1023), st.integers(0, 2**32 - 1)),
            st.tuples(st.just("control"), st.integers(0, 17), st.integers(0, 2**32 - 1)),
            st.tuples(st.just("send"), st.integers(1, 20), st.just(0)),
            st.tuples(st.just("unmask"), st.integers(0, 63), st.just(0)),
            st.tuples(st.just("priority"), st.integers(0, 63), st.integers(0, 15)),
            st.tuples(st.just("rebind"), st.integers(1, 20), st.just(0)),
        ),
        max_size=60,
    )
)
def test_a_guest_that_spoils_its_words_writes_nowhere_else(steps: list[tuple[str, int, int]]) -> None:
    machine = Machine(frames=64)
    guest = Fifo(machine)
    while events.bind_ipi(guest.at, 0) < 20:
        pass
    words, block = guest.arrays[0], guest.control[0]
    for step, which, value in steps:
        before = bytes(machine.memory)
        if step == "word":
            words[which] = value
            continue
        if step == "control":
            ctypes.cast(ctypes.addressof(block), ctypes.POINTER(ctypes.c_uint32))[which] = value
            continue
        if step == "send":
            events.evtchn_send(machine.at, guest.at, which)
        elif step == "unmask":
            events.unmask(guest.at, which)
        elif step == "priority":
            events.set_priority(guest.at, which, value)
        elif events.close_port(guest.at, which) == 0:
            events.bind_ipi(guest.at, 0)
        after = bytes(machine.memory)
        pages = [slice(at, at + 4096) for at in range(0, len(after), 4096)]
        changed = {page.start >> 12 for page in pages if before[page] != after[page]}
        assert changed <= {*guest.frames, guest.guest.shared_mfn}
        # Of the words only those of ports change that the domain has.
        at = ctypes.addressof(words) - machine.host.memory
        others = slice(at + 4 * 64, at + 4096)
        assert before[others] == after[others]
    guest.end()
    machine.close()


def test_a_tail_that_the_guest_unlinked_starts_the_queue_anew(machine: Machine) -> None:
    guest = Fifo(machine)
    a, b = (events.bind_ipi(guest.at, 0) for _ in range(2))
    guest.send(a)
    guest.put(a, guest.get(a) & ~LINKED)
    guest.send(b)
    assert guest.control[0].head[7] == b
    assert guest.get(a) == PENDING
    # BUSY is the hypervisor's: whoever set it, the next link clears it.
    guest.put(b, guest.get(b) | BUSY)
    guest.send(a)
    assert guest.get(b) == PENDING | LINKED | a
    assert guest.drain() == [(7, b), (7, a)]
    guest.end()
