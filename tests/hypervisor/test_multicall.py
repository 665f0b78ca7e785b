"""multicall: a batch ends at the first entry that cannot be read, or whose result cannot be written."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from paravirt.abi.errno import EFAULT, EINVAL, ENOSYS
from paravirt.abi.event_channel import EVTCHNOP_reset, EvtchnReset
from paravirt.abi.xen import DOMID_SELF, HYPERCALLS

from . import native
from .native import Guest, Machine, call
from .test_events import fresh

native_calls = native.functions("hypercalls.native")
events = native.functions("events")

MULTICALL, EVENT_CHANNEL_OP, STACK_SWITCH = (
    HYPERCALLS[name] for name in ("multicall", "event_channel_op", "stack_switch")
)
PAGE, ENTRY, WRITABLE = 4096, 64, 2


class Batch:
    """A guest that makes batches."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        native_calls.register_native(machine.at)
        self.guest: Guest = fresh(machine)

    def make(self, at: int, count: int) -> int:
        return call(native_calls.do_multicall, self.machine, self.guest.vcpu[0], at, count)

    def put(self, at: int, number: int, *args: int) -> None:
        """An entry, with a result that no call has."""
        self.machine.write(at, struct.pack("<8Q", number, 0x5EED, *args, *[0] * (6 - len(args))))

    def result(self, at: int) -> int:
        return int(struct.unpack("<q", self.machine.read(at + 8, 8))[0])

    def made(self, number: int) -> int:
        """How many calls of that number there were."""
        return int(self.machine.host.stats.hypercall_count[number])

    def entry_of(self, address: int) -> tuple[int, int]:
        """The page-table entry that maps an address: the words' frame and its index there."""
        table = self.guest.table
        for _ in range(3):
            table = self.machine.words(table)[0] >> 12
        return table, address >> 12

    def end(self) -> None:
        self.machine.host.work = 0
        while not events.destroy_ports(self.guest.at):
            self.machine.host.work = 0


@pytest.fixture
def batch() -> Iterator[Batch]:
    made = Batch(Machine(frames=256))
    yield made
    made.end()
    made.machine.close()


def test_results_come_one_by_one(batch: Batch) -> None:
    at = batch.guest.page()
    batch.put(at, STACK_SWITCH, 8, 0x1000)
    batch.put(at + ENTRY, 63)
    batch.put(at + 2 * ENTRY, STACK_SWITCH, 16, 0x2000)
    assert batch.make(at, 2 | 1 << 32) == 0
    assert [batch.result(at + i * ENTRY) for i in range(3)] == [0, -ENOSYS, 0x5EED]
    assert (batch.guest.vcpu[0].rec.kernel_ss, batch.guest.vcpu[0].rec.kernel_sp) == (8 | 3, 0x1000)


def test_a_batch_in_a_batch_is_refused(batch: Batch) -> None:
    at = batch.guest.page()
    batch.put(at, MULTICALL, at, 1)
    assert batch.make(at, 1) == 0
    assert batch.result(at) == -EINVAL
    # The batch has ended: another one can be made.
    assert batch.make(at, 1) == 0


def test_an_entry_that_cannot_be_read_is_not_made(batch: Batch) -> None:
    at = batch.guest.page()
    batch.put(at + PAGE - ENTRY, STACK_SWITCH, 8, 0x1000)
    table, index = batch.entry_of(at + PAGE)
    batch.machine.words(table)[index] = 0
    assert batch.make(at + PAGE - ENTRY, 2) == -EFAULT
    assert batch.result(at + PAGE - ENTRY) == 0
    assert batch.made(STACK_SWITCH) == 1
    assert batch.guest.vcpu[0].rec.in_multicall == 0


def test_a_result_that_cannot_be_written_ends_the_batch(batch: Batch) -> None:
    at = batch.guest.page()
    batch.put(at, STACK_SWITCH, 8, 0x1000)
    batch.put(at + ENTRY, STACK_SWITCH, 8, 0x1000)
    table, index = batch.entry_of(at)
    batch.machine.words(table)[index] &= ~WRITABLE
    assert batch.make(at, 2) == -EFAULT
    assert batch.made(STACK_SWITCH) == 1
    assert batch.guest.vcpu[0].rec.in_multicall == 0


@pytest.mark.parametrize("writable", [True, False])
def test_the_rest_of_a_preempted_call_is_written_back(batch: Batch, writable: bool) -> None:
    batch.guest.rec.max_ports = 4096
    for _ in range(4095):
        assert events.bind_ipi(batch.guest.at, 0) > 0
    at, reset = batch.guest.page(), batch.guest.arguments(bytes(EvtchnReset(DOMID_SELF)))
    batch.put(at, EVENT_CHANNEL_OP, EVTCHNOP_reset, reset)
    batch.put(at + ENTRY, STACK_SWITCH, 8, 0x1000)
    table, index = batch.entry_of(at)
    if not writable:
        batch.machine.words(table)[index] &= ~WRITABLE
    cpu = batch.guest.vcpu[0].rec.cpu
    cpu.rip = 0x1002
    assert batch.make(at, 2) == (MULTICALL if writable else -EFAULT)
    # What goes on is the same batch, from this entry on, whose operation is another one now.
    assert cpu.rip == (0x1000 if writable else 0x1002)
    assert (batch.machine.read(at + 16, 4) == struct.pack("<I", EVTCHNOP_reset)) is not writable
    if writable:
        assert (cpu.gpr[7], cpu.gpr[6]) == (at, 2)
    assert (batch.guest.vcpu[0].rec.preempted, batch.guest.vcpu[0].rec.in_multicall) == (0, 0)
    assert batch.made(STACK_SWITCH) == 0
