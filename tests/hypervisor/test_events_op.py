"""event_channel_op as a guest calls it: arguments, answers, and refusals in Xen's order."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest

from paravirt.abi import errno, event_channel, xen
from paravirt.abi.event_channel import (
    EvtchnAllocUnbound,
    EvtchnBindInterdomain,
    EvtchnBindIpi,
    EvtchnBindPirq,
    EvtchnBindVcpu,
    EvtchnBindVirq,
    EvtchnExpandArray,
    EvtchnInitControl,
    EvtchnOp,
    EvtchnReset,
    EvtchnSend,
    EvtchnSetPriority,
    EvtchnStatus,
)

from . import native
from .native import Guest, Machine, call
from .test_events import Shared, fresh, port_of, service

operations = native.functions("hypercalls.event_channel_op")
events = native.functions("events")
DOMID_SELF, NOBODY = xen.DOMID_SELF, 9


def make(machine: Machine, guest: Guest, command: int, argument: ctypes.Structure) -> int:
    """Make the hypercall, with its argument read back."""
    at = guest.arguments(bytes(argument))
    result = call(operations.do_event_channel_op, machine, guest.vcpu[0], command, at)
    size = ctypes.sizeof(argument)
    ctypes.memmove(native.address(argument), machine.read(at, size), size)
    return result


def status(machine: Machine, guest: Guest, port: int, dom: int = DOMID_SELF) -> tuple[int, EvtchnStatus]:
    argument = EvtchnStatus(dom=dom, port=port)
    return make(machine, guest, event_channel.EVTCHNOP_status, argument), argument


@pytest.fixture
def machine() -> Iterator[Machine]:
    made = Machine(frames=256)
    yield made
    made.close()


@pytest.fixture
def guest(machine: Machine) -> Iterator[Guest]:
    made = fresh(machine, vcpus=2)
    yield made
    native.destroy_ports(made.at)


def test_what_is_bound_is_answered_and_has_a_status(machine: Machine, guest: Guest) -> None:
    ipi, virq = EvtchnBindIpi(vcpu=1), EvtchnBindVirq(virq=xen.VIRQ_DEBUG, vcpu=1)
    unbound = EvtchnAllocUnbound(dom=DOMID_SELF, remote_dom=DOMID_SELF)
    assert make(machine, guest, event_channel.EVTCHNOP_bind_ipi, ipi) == 0
    assert make(machine, guest, event_channel.EVTCHNOP_bind_virq, virq) == 0
    assert make(machine, guest, event_channel.EVTCHNOP_alloc_unbound, unbound) == 0
    loop = EvtchnBindInterdomain(remote_dom=DOMID_SELF, remote_port=unbound.port)
    assert make(machine, guest, event_channel.EVTCHNOP_bind_interdomain, loop) == 0
    assert (ipi.port, virq.port, unbound.port, loop.local_port) == (1, 2, 3, 4)
    result, found = status(machine, guest, 1, 1)
    assert (result, found.status, found.vcpu) == (0, event_channel.EVTCHNSTAT_ipi, 1)
    result, found = status(machine, guest, 2)
    assert (result, found.status, found.vcpu, found.u.virq) == (0, event_channel.EVTCHNSTAT_virq, 1, 1)
    result, found = status(machine, guest, 4)
    assert (result, found.status) == (0, event_channel.EVTCHNSTAT_interdomain)
    assert (found.u.interdomain.dom, found.u.interdomain.port) == (1, 3)
    assert make(machine, guest, event_channel.EVTCHNOP_close, EvtchnSend(port=4)) == 0
    result, found = status(machine, guest, 3)
    assert (result, found.status, found.u.unbound.dom) == (0, event_channel.EVTCHNSTAT_unbound, 1)
    assert status(machine, guest, 4)[1].status == event_channel.EVTCHNSTAT_closed
    assert make(machine, guest, event_channel.EVTCHNOP_bind_vcpu, EvtchnBindVcpu(port=3, vcpu=1)) == 0
    assert status(machine, guest, 3)[1].vcpu == 1
    # Free ports of the last bucket have a status, others have none.
    assert status(machine, guest, 63)[0] == 0
    assert status(machine, guest, 64)[0] == -errno.EINVAL


def test_the_first_ports_are_there_before_any_is_bound(machine: Machine, guest: Guest) -> None:
    assert make(machine, guest, event_channel.EVTCHNOP_unmask, EvtchnSend(port=0)) == 0
    assert make(machine, guest, event_channel.EVTCHNOP_send, EvtchnSend(port=0)) == -errno.EINVAL


@pytest.mark.parametrize(
    ("command", "argument", "error"),
    [
        (event_channel.EVTCHNOP_alloc_unbound, EvtchnAllocUnbound(NOBODY, 0), errno.ESRCH),
        (event_channel.EVTCHNOP_alloc_unbound, EvtchnAllocUnbound(xen.DOMID_INVALID, 0), errno.ESRCH),
        (event_channel.EVTCHNOP_alloc_unbound, EvtchnAllocUnbound(0, 0), errno.EPERM),
        (event_channel.EVTCHNOP_alloc_unbound, EvtchnAllocUnbound(2, 0), errno.ENOSPC),
        (event_channel.EVTCHNOP_status, EvtchnStatus(NOBODY, 1), errno.ESRCH),
        (event_channel.EVTCHNOP_status, EvtchnStatus(0, 1), errno.EPERM),
        (event_channel.EVTCHNOP_status, EvtchnStatus(0, 5000), errno.EINVAL),
        (event_channel.EVTCHNOP_reset, EvtchnReset(NOBODY), errno.ESRCH),
        (event_channel.EVTCHNOP_reset, EvtchnReset(0), errno.EPERM),
        (14, EvtchnReset(DOMID_SELF), errno.EBUSY),
        (14, EvtchnReset(0), errno.EPERM),
        (event_channel.EVTCHNOP_bind_pirq, EvtchnBindPirq(1), errno.EPERM),
        (event_channel.EVTCHNOP_bind_pirq, EvtchnBindPirq(0xFFFFFFFF), errno.EINVAL),
        (event_channel.EVTCHNOP_bind_virq, EvtchnBindVirq(99, 99), errno.EINVAL),
        (event_channel.EVTCHNOP_bind_virq, EvtchnBindVirq(xen.VIRQ_CONSOLE, 99), errno.EINVAL),
        (event_channel.EVTCHNOP_bind_virq, EvtchnBindVirq(xen.VIRQ_TIMER, 99), errno.ENOENT),
        (event_channel.EVTCHNOP_bind_vcpu, EvtchnBindVcpu(5000, 99), errno.ENOENT),
        (event_channel.EVTCHNOP_bind_vcpu, EvtchnBindVcpu(5000, 0), errno.EINVAL),
        (event_channel.EVTCHNOP_init_control, EvtchnInitControl(1 << 40, 4, 99), errno.ENOENT),
        (event_channel.EVTCHNOP_init_control, EvtchnInitControl(1 << 40, 0, 0), errno.EINVAL),
        (event_channel.EVTCHNOP_expand_array, EvtchnExpandArray(1 << 40), errno.EOPNOTSUPP),
        (event_channel.EVTCHNOP_set_priority, EvtchnSetPriority(5000, 99), errno.EINVAL),
        (event_channel.EVTCHNOP_set_priority, EvtchnSetPriority(60, 99), errno.ENOSYS),
        (15, EvtchnReset(DOMID_SELF), errno.ENOSYS),
        (0xFFFFFFFF, EvtchnReset(DOMID_SELF), errno.ENOSYS),
    ],
)
def test_refusals(
    machine: Machine, guest: Guest, command: int, argument: ctypes.Structure, error: int
) -> None:
    zero, full = service(machine), fresh(machine, 2, max_ports=1)
    assert events.alloc_unbound(native.address(zero), 1) == 1
    before = bytes(argument)
    assert make(machine, guest, command, argument) == -error
    assert bytes(argument) == before
    # The number is 32 bits wide: what is above them does not count.
    assert make(machine, guest, command | 1 << 40, argument) == -error
    native.destroy_ports(native.address(zero))
    native.destroy_ports(full.at)


def test_a_privileged_domain_acts_on_others(machine: Machine, guest: Guest) -> None:
    other = fresh(machine, 2)
    guest.rec.is_privileged = 1
    argument = EvtchnAllocUnbound(dom=2, remote_dom=DOMID_SELF)
    assert make(machine, guest, event_channel.EVTCHNOP_alloc_unbound, argument) == 0
    assert port_of(other, argument.port).remote_domid == 1
    assert status(machine, guest, argument.port, 2)[1].status == event_channel.EVTCHNSTAT_unbound
    assert make(machine, guest, event_channel.EVTCHNOP_reset, EvtchnReset(2)) == -errno.EINVAL
    other.rec.paused = 1
    assert make(machine, guest, event_channel.EVTCHNOP_reset, EvtchnReset(2)) == 0
    assert port_of(other, argument.port).state == 0
    native.destroy_ports(other.at)


def test_a_long_reset_is_preempted_and_goes_on(machine: Machine) -> None:
    many = fresh(machine, 3, max_ports=4096)
    ports = [events.bind_ipi(many.at, 0) for _ in range(4095)]
    assert ports == list(range(1, 4096))
    many.vcpu[0].rec.hypercall = xen.__HYPERVISOR_event_channel_op
    many.vcpu[0].rec.cpu.rip = 0x1002
    reset, going_on = event_channel.EVTCHNOP_reset, 14
    command, rounds = reset, 0
    left = len(ports)
    while make(machine, many, command, EvtchnReset(DOMID_SELF)) == xen.__HYPERVISOR_event_channel_op:
        assert many.vcpu[0].rec.preempted == 1
        assert (many.vcpu[0].rec.cpu.rip, many.vcpu[0].rec.cpu.gpr[7]) == (0x1000, going_on)
        still = sum(port_of(many, port).state != 0 for port in ports)
        assert 0 < still < left
        left = still
        # Meanwhile nobody begins another one; everything else can be done.
        many.vcpu[0].rec.preempted = 0
        assert make(machine, many, reset, EvtchnReset(DOMID_SELF)) == -errno.EBUSY
        assert make(machine, many, event_channel.EVTCHNOP_close, EvtchnSend(port=ports[-1])) in (0, -errno.EINVAL)
        many.vcpu[0].rec.cpu.rip = 0x1002
        machine.host.work = 0
        command = going_on
        rounds += 1
    assert rounds > 1
    assert all(port_of(many, port).state == 0 for port in ports)
    assert make(machine, many, going_on, EvtchnReset(DOMID_SELF)) == -errno.EBUSY
    assert events.bind_ipi(many.at, 0) == 1
    native.destroy_ports(many.at)


def test_fifo_by_hypercalls(machine: Machine, guest: Guest) -> None:
    control, array = machine.alloc(1), machine.alloc(1)
    argument = EvtchnInitControl(control_gfn=control, offset=8, vcpu=0)
    assert make(machine, guest, event_channel.EVTCHNOP_init_control, argument) == 0
    assert argument.link_bits == 17
    assert make(machine, guest, event_channel.EVTCHNOP_expand_array, EvtchnExpandArray(array)) == 0
    port = events.bind_ipi(guest.at, 0)
    assert make(machine, guest, event_channel.EVTCHNOP_set_priority, EvtchnSetPriority(port, 4)) == 0
    assert make(machine, guest, event_channel.EVTCHNOP_send, EvtchnSend(port)) == 0
    block = event_channel.EvtchnFifoControlBlock.from_buffer_copy(machine.read((control << 12) + 8, 72))
    assert (block.ready, block.head[4]) == (1 << 4, port)
    assert make(machine, guest, event_channel.EVTCHNOP_reset, EvtchnReset(DOMID_SELF)) == 0
    assert (guest.rec.fifo, port_of(guest, port).state) == (0, 0)
    assert machine.frames[control].type_refs == machine.frames[array].type_refs == 0


def test_only_operations_with_an_answer_write_their_argument(machine: Machine, guest: Guest) -> None:
    port = events.alloc_unbound(guest.at, 0)
    arguments = {
        event_channel.EVTCHNOP_bind_vcpu: (EvtchnBindVcpu(port, 1), 0),
        event_channel.EVTCHNOP_send: (EvtchnSend(port), 0),
        event_channel.EVTCHNOP_unmask: (EvtchnSend(port), 0),
        event_channel.EVTCHNOP_status: (EvtchnStatus(DOMID_SELF, port), -errno.EFAULT),
        event_channel.EVTCHNOP_bind_ipi: (EvtchnBindIpi(0), -errno.EFAULT),
    }
    for command, (argument, expected) in arguments.items():
        at = guest.arguments(bytes(argument))
        table = guest.table
        for _ in range(3):
            table = machine.words(table)[0] >> 12
        machine.words(table)[at >> 12] &= ~2
        assert call(operations.do_event_channel_op, machine, guest.vcpu[0], command, at) == expected
    # The port was bound all the same.
    assert port_of(guest, port + 1).state == 6


def test_the_argument_must_be_readable(machine: Machine, guest: Guest) -> None:
    for command in range(15):
        for at in (0x12345678_000, 0xFFFF_8000_0000_0000, (256 << 12) - 1):
            result = call(operations.do_event_channel_op, machine, guest.vcpu[0], command, at)
            assert result == -errno.EFAULT
    assert guest.rec.nr_ports == 0


def test_the_older_hypercall(machine: Machine, guest: Guest) -> None:
    def make_old(op: EvtchnOp, at: int | None = None) -> int:
        at = guest.arguments(bytes(op)) if at is None else at
        result = call(operations.do_event_channel_op_compat, machine, guest.vcpu[0], at)
        ctypes.memmove(native.address(op), machine.read(at, ctypes.sizeof(op)), ctypes.sizeof(op))
        return result

    op = EvtchnOp(cmd=event_channel.EVTCHNOP_bind_virq)
    op.u.bind_virq.virq, op.u.bind_virq.vcpu = xen.VIRQ_TIMER, 1
    assert make_old(op) == 0
    assert (op.u.bind_virq.port, op.cmd) == (1, event_channel.EVTCHNOP_bind_virq)
    assert make_old(op) == -errno.EEXIST
    op = EvtchnOp(cmd=event_channel.EVTCHNOP_status)
    op.u.status.dom, op.u.status.port = DOMID_SELF, 1
    assert make_old(op) == 0
    assert (op.u.status.status, op.u.status.vcpu) == (event_channel.EVTCHNSTAT_virq, 1)
    op = EvtchnOp(cmd=event_channel.EVTCHNOP_close)
    op.u.close.port = 1
    assert make_old(op) == 0
    for command in (*range(10, 16), 0xFFFFFFFF):
        assert make_old(EvtchnOp(cmd=command)) == -errno.ENOSYS
    # 28 bytes must be readable, whatever the operation needs; not more.  (All zero: a bind to domain 0.)
    end = 256 << 12
    assert make_old(EvtchnOp(), end - 28) == -errno.ESRCH
    assert call(operations.do_event_channel_op_compat, machine, guest.vcpu[0], end - 27) == -errno.EFAULT


def test_send_reaches_the_other_domain(machine: Machine, guest: Guest) -> None:
    other = fresh(machine, 2)
    offered = events.alloc_unbound(other.at, 1)
    bound = events.bind_interdomain(guest.at, 2, offered)
    assert make(machine, guest, event_channel.EVTCHNOP_send, EvtchnSend(bound)) == 0
    assert Shared(other).is_pending(offered)
    native.destroy_ports(other.at)
