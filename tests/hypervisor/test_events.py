"""Event channels: ports and the two-level ABI, against a model of the bits; posting; Domain 0; pollers."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paravirt.abi import errno, event_channel, xen

from . import native
from .native import Guest, Machine

events = native.functions("events")
scheduling = native.functions("scheduling")

FREE, RESERVED, UNBOUND, INTERDOMAIN, _PIRQ, VIRQ, IPI = range(7)
IN_BLOCK, IN_POLL = 1, 4


class Shared:
    """A guest's two-level words: pending and mask bits by port, and each vcpu's selector and upcall byte."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        shared = guest.rec.shared_info
        self.pending = (ctypes.c_uint64 * 64).from_address(shared + xen.SharedInfo.evtchn_pending.offset)
        self.mask = (ctypes.c_uint64 * 64).from_address(shared + xen.SharedInfo.evtchn_mask.offset)

    def is_pending(self, port: int) -> bool:
        return bool(self.pending[port // 64] >> port % 64 & 1)

    def set_pending(self, port: int, value: bool) -> None:
        self.pending[port // 64] &= ~(1 << port % 64)
        self.pending[port // 64] |= value << port % 64

    def set_mask(self, port: int, value: bool) -> None:
        self.mask[port // 64] &= ~(1 << port % 64)
        self.mask[port // 64] |= value << port % 64

    def info(self, vcpu: int = 0) -> Any:
        return xen.VcpuInfo.from_address(self.guest.vcpu[vcpu].rec.info)


def fresh(machine: Machine, domid: int = 1, vcpus: int = 1, *, max_ports: int = 1024) -> Guest:
    """A guest that has no ports yet."""
    guest = Guest(machine, domid, vcpus)
    guest.rec.ports = None
    guest.rec.nr_ports = 0
    guest.rec.max_ports = max_ports
    for vcpu in guest.vcpu:
        vcpu.rec.virq_port[0] = 0
    return guest


def service(machine: Machine) -> Any:
    """Domain 0."""
    zero = native.Domain()
    zero.host = machine.at
    zero.is_service = zero.is_privileged = 1
    machine.domains[0] = native.address(zero)
    return machine.keep(zero)


def port_of(guest: Guest, port: int) -> Any:
    """The record of a port."""
    assert port < guest.rec.nr_ports
    return native.Port.from_address(guest.rec.ports + port * ctypes.sizeof(native.Port))


def enter_guest(machine: Machine, guest: Guest, vcpu: int = 0) -> None:
    """The vcpu's state is in the engine, and guest code runs."""
    machine.cpus[0].current = guest.vcpu[vcpu].at
    guest.vcpu[vcpu].rec.on_cpu = 1


@pytest.fixture
def machine() -> Iterator[Machine]:
    made = Machine(frames=256)
    yield made
    made.close()


# --- ports --------------------------------------------------------------------------------------------------


def test_port_0_is_never_given_out_and_the_lowest_free_port_comes_first(machine: Machine) -> None:
    guest = fresh(machine)
    assert [events.bind_ipi(guest.at, 0) for _ in range(3)] == [1, 2, 3]
    assert guest.rec.nr_ports == 64
    assert port_of(guest, 0).state == RESERVED
    assert events.close_port(guest.at, 2) == 0
    assert events.alloc_unbound(guest.at, 7) == 2
    assert (port_of(guest, 2).state, port_of(guest, 2).remote_domid) == (UNBOUND, 7)
    assert events.close_port(guest.at, 0) == -errno.EINVAL
    native.destroy_ports(guest.at)
    assert (guest.rec.nr_ports, guest.rec.ports) == (0, None)


@pytest.mark.parametrize(
    ("toolstack", "fifo", "last"),
    [(1024, 0, 1023), (1024, 1, 1023), (200_000, 0, 4095), (200_000, 1, 131_071)],
)
def test_ports_end_where_the_toolstack_or_the_abi_says(
    machine: Machine, toolstack: int, fifo: int, last: int
) -> None:
    guest = fresh(machine, max_ports=toolstack)
    guest.rec.fifo = fifo
    assert events.port_limit(guest.at) == last + 1
    guest.rec.fifo = 0
    if not fifo:
        for _ in range(last):
            assert events.bind_ipi(guest.at, 0) > 0
        assert events.bind_ipi(guest.at, 0) == -errno.ENOSPC
        # The last port's bit is the last of the ABI's, and nothing behind the bitmap is touched.
        behind = bytes(Shared(guest).mask)
        assert events.evtchn_send(machine.at, guest.at, last) == 0
        assert Shared(guest).is_pending(last)
        assert bytes(Shared(guest).mask) == behind
    native.destroy_ports(guest.at)


def test_domain_0_has_ports_for_all_guests(machine: Machine) -> None:
    zero = service(machine)
    zero.max_ports = 4
    at = native.address(zero)
    assert [events.alloc_unbound(at, 1) for _ in range(2000)] == list(range(1, 2001))
    native.destroy_ports(at)


def test_a_dying_domain_gets_no_port_and_no_event(machine: Machine) -> None:
    guest = fresh(machine)
    port = events.bind_ipi(guest.at, 0)
    guest.rec.dying = 1
    assert events.bind_ipi(guest.at, 0) == -errno.EINVAL
    assert events.evtchn_send(machine.at, guest.at, port) == 0
    assert not Shared(guest).is_pending(port)
    native.destroy_ports(guest.at)


# --- channels between domains -------------------------------------------------------------------------------


def test_a_channel_from_bind_to_close(machine: Machine) -> None:
    one, two = fresh(machine, 1), fresh(machine, 2)
    offered = events.alloc_unbound(one.at, 2)
    assert events.evtchn_send(machine.at, one.at, offered) == 0
    assert events.bind_interdomain(two.at, 9, offered) == -errno.ESRCH
    assert events.bind_interdomain(two.at, 1, offered + 1) == -errno.EINVAL
    assert events.bind_interdomain(two.at, 1, 5000) == -errno.EINVAL
    bound = events.bind_interdomain(two.at, 1, offered)
    assert bound == 1
    # The end that binds is pending at once; the other is not.
    assert Shared(two).is_pending(bound)
    assert not Shared(one).is_pending(offered)
    assert events.bind_interdomain(two.at, 1, offered) == -errno.EINVAL
    assert events.evtchn_send(machine.at, two.at, bound) == 0
    assert Shared(one).is_pending(offered)
    assert Shared(one).info().evtchn_upcall_pending == 1
    assert events.close_port(two.at, bound) == 0
    assert not Shared(two).is_pending(bound)
    left = port_of(one, offered)
    assert (left.state, left.remote_domid) == (UNBOUND, 2)
    native.destroy_ports(two.at)
    native.destroy_ports(one.at)


def test_only_the_domain_that_a_port_waits_for_may_bind_it(machine: Machine) -> None:
    one, two, three = (fresh(machine, domid) for domid in (1, 2, 3))
    offered = events.alloc_unbound(one.at, 2)
    assert events.bind_interdomain(three.at, 1, offered) == -errno.EINVAL
    assert events.bind_interdomain(two.at, 1, offered) == 1
    for guest in (one, two, three):
        native.destroy_ports(guest.at)


def test_who_has_no_port_left_cannot_bind_and_the_offer_stands(machine: Machine) -> None:
    one, two = fresh(machine, 1), fresh(machine, 2, max_ports=2)
    offered, last = events.alloc_unbound(one.at, 2), events.bind_ipi(two.at, 0)
    assert events.bind_interdomain(two.at, 1, offered) == -errno.ENOSPC
    assert port_of(one, offered).state == UNBOUND
    assert events.close_port(two.at, last) == 0
    assert events.bind_interdomain(two.at, 1, offered) == last
    native.destroy_ports(two.at)
    native.destroy_ports(one.at)


def test_a_channel_within_one_domain(machine: Machine) -> None:
    guest = fresh(machine)
    first = events.alloc_unbound(guest.at, 1)
    second = events.bind_interdomain(guest.at, 1, first)
    Shared(guest).set_pending(second, False)
    assert events.evtchn_send(machine.at, guest.at, second) == 0
    assert Shared(guest).is_pending(first)
    assert not Shared(guest).is_pending(second)
    assert events.close_port(guest.at, first) == 0
    assert port_of(guest, second).state == UNBOUND
    native.destroy_ports(guest.at)


def test_a_domain_that_ends_leaves_its_peers_unbound(machine: Machine) -> None:
    one, two = fresh(machine, 1), fresh(machine, 2)
    bound = events.bind_interdomain(two.at, 1, events.alloc_unbound(one.at, 2))
    one.rec.dying = 1
    native.destroy_ports(one.at)
    assert port_of(two, bound).state == UNBOUND
    assert events.evtchn_send(machine.at, two.at, bound) == 0
    native.destroy_ports(two.at)


# --- virtual interrupts, interrupts between vcpus -----------------------------------------------------------


def test_virtual_interrupts(machine: Machine) -> None:
    guest = fresh(machine, vcpus=2)
    shared = Shared(guest)
    assert events.bind_virq(guest.at, xen.NR_VIRQS, 0) == -errno.EINVAL
    assert events.bind_virq(guest.at, xen.VIRQ_TIMER, 2) == -errno.ENOENT
    assert events.bind_virq(guest.at, xen.VIRQ_CONSOLE, 1) == -errno.EINVAL
    assert events.bind_virq(guest.at, xen.VIRQ_ARCH_0, 1) == -errno.EINVAL
    timers = [events.bind_virq(guest.at, xen.VIRQ_TIMER, vcpu) for vcpu in (0, 1)]
    assert timers == [1, 2]
    assert events.bind_virq(guest.at, xen.VIRQ_TIMER, 1) == -errno.EEXIST
    for virq in (xen.VIRQ_DEBUG, xen.VIRQ_XENOPROF, xen.VIRQ_XENPMU):
        port = events.bind_virq(guest.at, virq, 1)
        assert guest.vcpu[1].rec.virq_port[virq] == port > 0
        assert events.close_port(guest.at, port) == 0
    console = events.bind_virq(guest.at, xen.VIRQ_CONSOLE, 0)
    events.send_virq(guest.vcpu[1].at, xen.VIRQ_TIMER)
    assert [shared.is_pending(port) for port in (*timers, console)] == [False, True, False]
    assert [shared.info(vcpu).evtchn_upcall_pending for vcpu in (0, 1)] == [0, 1]
    # A global one can be moved, and is still found; the vcpu's own cannot.
    assert events.bind_vcpu(guest.at, console, 1) == 0
    assert events.bind_vcpu(guest.at, timers[0], 1) == -errno.EINVAL
    assert events.send_global_virq(guest.at, xen.VIRQ_CONSOLE) == 0
    assert shared.is_pending(console)
    assert shared.info(0).evtchn_upcall_pending == 0
    shared.set_pending(console, False)
    assert events.send_virq(guest.vcpu[1].at, xen.VIRQ_CONSOLE) == 0
    assert shared.is_pending(console)
    assert events.send_global_virq(guest.at, xen.VIRQ_TIMER) == -errno.EINVAL
    assert events.send_global_virq(guest.at, 99) == -errno.EINVAL
    # After closing nobody hears of it; it may be bound again.
    assert events.close_port(guest.at, timers[0]) == 0
    assert guest.vcpu[0].rec.virq_port[xen.VIRQ_TIMER] == 0
    events.send_virq(guest.vcpu[0].at, xen.VIRQ_TIMER)
    assert shared.info(0).evtchn_upcall_pending == 0
    assert events.bind_virq(guest.at, xen.VIRQ_TIMER, 0) == timers[0]
    assert events.evtchn_send(machine.at, guest.at, timers[0]) == -errno.EINVAL
    native.destroy_ports(guest.at)


def test_interrupts_between_vcpus(machine: Machine) -> None:
    guest = fresh(machine, vcpus=2)
    port = events.bind_ipi(guest.at, 1)
    assert events.bind_ipi(guest.at, 2) == -errno.ENOENT
    assert events.bind_vcpu(guest.at, port, 0) == -errno.EINVAL
    assert events.bind_vcpu(guest.at, port, 2) == -errno.ENOENT
    assert events.bind_vcpu(guest.at, 64, 0) == -errno.EINVAL
    guest.vcpu[1].rec.pause_flags = IN_BLOCK
    assert events.evtchn_send(machine.at, guest.at, port) == 0
    assert Shared(guest).info(1).evtchn_upcall_pending == 1
    assert guest.vcpu[1].rec.pause_flags == 0
    native.destroy_ports(guest.at)


# --- the words ----------------------------------------------------------------------------------------------


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["send", "unmask", "mask", "clear mask", "clear pending", "take", "close"]),
        st.integers(0, 5),
    ),
    max_size=60,
)


class Model:
    """The two-level ABI as its description reads: sets of ports, selected words, and the upcall flag."""

    def __init__(self) -> None:
        self.pending: set[int] = set()
        self.masked: set[int] = set()
        self.selector: set[int] = set()
        self.upcall = False

    def select(self, port: int) -> None:
        if port // 64 not in self.selector:
            self.selector.add(port // 64)
            self.upcall = True

    def send(self, port: int) -> None:
        if port not in self.pending:
            self.pending.add(port)
            if port not in self.masked:
                self.select(port)

    def unmask(self, port: int) -> None:
        if port in self.masked:
            self.masked.remove(port)
            if port in self.pending:
                self.select(port)


@settings(deadline=None)
@given(STEPS)
def test_two_level_words_follow_the_model(steps: list[tuple[str, int]]) -> None:
    machine = Machine(frames=64)
    guest = fresh(machine)
    shared, model = Shared(guest), Model()
    while events.bind_ipi(guest.at, 0) < 140:
        pass
    ports = [1, 63, 64, 65, 128, 139]
    for step, which in steps:
        port = ports[which]
        if step == "send":
            assert events.evtchn_send(machine.at, guest.at, port) == 0
            model.send(port)
        elif step == "unmask":
            assert events.unmask(guest.at, port) == 0
            model.unmask(port)
        elif step == "mask":
            shared.set_mask(port, True)
            model.masked.add(port)
        elif step == "clear mask":
            shared.set_mask(port, False)
            model.masked.discard(port)
        elif step == "clear pending":
            shared.set_pending(port, False)
            model.pending.discard(port)
        elif step == "take":
            shared.info().evtchn_upcall_pending = 0
            shared.info().evtchn_pending_sel = 0
            model.upcall = False
            model.selector.clear()
        else:
            assert events.close_port(guest.at, port) == 0
            assert events.bind_ipi(guest.at, 0) == port
            model.pending.discard(port)
        assert {p for p in range(4096) if shared.is_pending(p)} == model.pending
        assert {p for p in range(4096) if shared.mask[p // 64] >> p % 64 & 1} == model.masked
        assert {w for w in range(64) if shared.info().evtchn_pending_sel >> w & 1} == model.selector
        assert bool(shared.info().evtchn_upcall_pending) == model.upcall
        assert bool(events.is_pending(guest.at, port)) == (port in model.pending)
    native.destroy_ports(guest.at)
    machine.close()


def test_an_upcall_is_due_when_it_is_pending_and_not_masked(machine: Machine) -> None:
    guest = fresh(machine)
    info = Shared(guest).info()
    for pending, mask in ((0, 0), (0, 1), (1, 0), (1, 1), (0x80, 0)):
        info.evtchn_upcall_pending, info.evtchn_upcall_mask = pending, mask
        assert bool(scheduling.events_need_delivery(guest.vcpu[0].at)) == (bool(pending) and not mask)


def test_a_vcpu_without_vcpu_info_gets_bits_but_no_upcall(machine: Machine) -> None:
    guest = fresh(machine, vcpus=33)
    assert guest.vcpu[32].rec.info is None
    port = events.bind_ipi(guest.at, 32)
    assert events.evtchn_send(machine.at, guest.at, port) == 0
    assert Shared(guest).is_pending(port)
    assert not scheduling.events_need_delivery(guest.vcpu[32].at)
    native.destroy_ports(guest.at)


def test_unmask_leaves_ports_alone_that_are_not_in_use(machine: Machine) -> None:
    guest = fresh(machine)
    shared = Shared(guest)
    events.bind_ipi(guest.at, 0)
    shared.set_mask(60, True)
    assert events.unmask(guest.at, 60) == 0
    assert events.unmask(guest.at, 0) == 0
    assert events.unmask(guest.at, 64) == -errno.EINVAL
    assert shared.mask[0] == 1 << 60
    native.destroy_ports(guest.at)


@pytest.mark.parametrize(("polled", "woken"), [(0, True), (1, True), (2, False)])
def test_an_event_ends_a_poll_for_it_even_if_it_is_masked(machine: Machine, polled: int, woken: bool) -> None:
    guest = fresh(machine, vcpus=2)
    port = events.bind_ipi(guest.at, 0)
    Shared(guest).set_mask(port, True)
    poller = guest.vcpu[1].rec
    poller.pause_flags, poller.poll_port = IN_POLL, polled
    events.evtchn_send(machine.at, guest.at, port)
    assert bool(poller.pause_flags & IN_POLL) is not woken
    assert Shared(guest).info(0).evtchn_upcall_pending == 0
    # A second event is no news: it would not wake anybody.
    poller.pause_flags = IN_POLL
    events.evtchn_send(machine.at, guest.at, port)
    assert poller.pause_flags & IN_POLL
    native.destroy_ports(guest.at)


# --- posting ------------------------------------------------------------------------------------------------


def test_a_domain_in_guest_code_is_kicked_and_its_words_are_left_alone(machine: Machine) -> None:
    guest = fresh(machine, vcpus=2)
    shared = Shared(guest)
    ports = [events.bind_ipi(guest.at, vcpu) for vcpu in (0, 1)]
    guest.vcpu[1].rec.pause_flags = IN_BLOCK
    enter_guest(machine, guest)
    machine.calls.clear()
    for port in ports:
        assert events.evtchn_send(machine.at, guest.at, port) == 0
    assert machine.calls == [("kick", 1)] * 2
    assert guest.rec.posted
    assert not any(shared.pending)
    assert all(events.is_pending(guest.at, port) for port in ports)
    assert guest.vcpu[1].rec.pause_flags == IN_BLOCK
    guest.vcpu[0].rec.on_cpu = 0
    events.apply_posted(guest.at)
    assert not guest.rec.posted
    assert shared.pending[0] == 0b110
    assert [shared.info(vcpu).evtchn_upcall_pending for vcpu in (0, 1)] == [1, 1]
    assert guest.vcpu[1].rec.pause_flags == 0
    assert not any(port_of(guest, port).pending for port in range(guest.rec.nr_ports))
    native.destroy_ports(guest.at)


def test_only_the_domain_that_is_in_guest_code_is_posted_to(machine: Machine) -> None:
    one, two = fresh(machine, 1), fresh(machine, 2)
    ports = [events.bind_ipi(guest.at, 0) for guest in (one, two)]
    enter_guest(machine, one)
    for guest, port in zip((one, two), ports, strict=True):
        events.evtchn_send(machine.at, guest.at, port)
    assert (bool(one.rec.posted), bool(two.rec.posted)) == (True, False)
    assert (Shared(one).is_pending(ports[0]), Shared(two).is_pending(ports[1])) == (False, True)
    # In a handler, it is out of guest code.
    one.vcpu[0].rec.on_cpu = 0
    other = events.bind_ipi(one.at, 0)
    events.evtchn_send(machine.at, one.at, other)
    assert Shared(one).is_pending(other)
    for guest in (one, two):
        native.destroy_ports(guest.at)


def test_what_is_posted_to_a_port_goes_when_it_is_closed(machine: Machine) -> None:
    guest = fresh(machine)
    port = events.bind_ipi(guest.at, 0)
    enter_guest(machine, guest)
    events.evtchn_send(machine.at, guest.at, port)
    guest.vcpu[0].rec.on_cpu = 0
    assert events.close_port(guest.at, port) == 0
    assert events.bind_ipi(guest.at, 0) == port
    events.apply_posted(guest.at)
    assert not Shared(guest).is_pending(port)
    native.destroy_ports(guest.at)
    events.apply_posted(guest.at)


# --- Domain 0 -----------------------------------------------------------------------------------------------


def test_domain_0_is_told_by_its_eventfd(machine: Machine) -> None:
    zero, guest = service(machine), fresh(machine)
    at = native.address(zero)
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    try:
        machine.host.service_fd = fd
        offered = events.alloc_unbound(guest.at, 0)
        bound = events.bind_interdomain(at, 1, offered)
        assert (machine.host.service_pending, os.eventfd_read(fd)) == (1, 1)
        ports = (native.Port * zero.nr_ports).from_address(zero.ports)
        assert ports[bound].pending == 1
        # As take_service_events does:
        ports[bound].pending = machine.host.service_pending = 0
        for _ in range(3):
            assert events.evtchn_send(machine.at, guest.at, offered) == 0
        assert ports[bound].pending == 1
        # Three events before it looked are told once.
        assert (machine.host.service_pending, os.eventfd_read(fd)) == (1, 1)
        assert events.evtchn_send(machine.at, at, bound) == 0
        assert Shared(guest).is_pending(offered)
    finally:
        machine.host.service_fd = -1
        os.close(fd)
    native.destroy_ports(at)
    assert port_of(guest, offered).state == UNBOUND
    native.destroy_ports(guest.at)


def test_priorities_are_for_the_fifo_abi(machine: Machine) -> None:
    guest = fresh(machine)
    port = events.bind_ipi(guest.at, 0)
    assert events.set_priority(guest.at, 5000, 0) == -errno.EINVAL
    assert events.set_priority(guest.at, port, 0) == -errno.ENOSYS
    assert events.set_priority(guest.at, 60, 99) == -errno.ENOSYS
    assert port_of(guest, port).priority == event_channel.EVTCHN_FIFO_PRIORITY_DEFAULT
    native.destroy_ports(guest.at)
