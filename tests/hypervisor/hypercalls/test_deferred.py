"""Updates of page tables that an engine has answered: checked as things are when they are made, and from whom they are
taken."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest

from .. import native
from ..native import Guest, Machine

deferred = native.functions("hypercalls.deferred")
traps = native.functions("traps")

L1, L2, VALIDATED, WRITABLE = 1, 2, 4, 7
USER, PRESENT = 0x107, 1  # of a page that ring 3 may use, as the hypervisor leaves it
ABSENT_VCPUS, UPDATES, TIMER, RETURN = 1, 2, 4, 8
TRUSTED, NEVER_TRUSTED = 1000, 0xFFFFFFFF
SERVES_NOW = 1
RSP = 4
EBUSY, EINVAL = 16, 22
XENS_TIMER_SLOP = 50_000
"""In ns: how late Xen lets a timer go off so that it goes off together with another."""


class Queue:
    """A guest with an L1 table, and what its engine has put off; ``named``: tables whose updates that may put off."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.named: list[int] = []
        name = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64)
        defer_table = self.machine.keep(name(lambda engine, cpu, mfn: self.named.append(mfn)))
        self.machine.ops.defer_table = ctypes.cast(defer_table, ctypes.c_void_p).value
        self.guest = Guest(self.machine)
        self.vcpu = self.guest.vcpu[0].rec
        self.table = self.machine.alloc(1)
        self.frame = self.machine.frames[self.table]
        self.frame.type, self.frame.type_refs, self.frame.refs = L1, 1, 2
        self.frame.flags |= VALIDATED
        self.page = self.machine.alloc(1)
        self.vcpu.good_updates = TRUSTED

    def request(self, index: int, value: int, command: int = 0) -> tuple[int, int]:
        return (self.table << 12) + 8 * index | command, value

    def carry_out(self, *requests: tuple[int, int]) -> None:
        words = (ctypes.c_uint64 * (2 * len(requests)))(*[word for request in requests for word in request])
        self.vcpu.cpu.deferred = native.address(words)
        self.vcpu.cpu.nr_deferred = len(requests)
        deferred.carry_out_deferred(self.machine.at, self.guest.vcpu[0].at)
        assert self.vcpu.cpu.nr_deferred == 0

    def entry(self, index: int) -> int:
        return int(self.machine.words(self.table)[index])

    def shortcuts(self) -> int:
        return int(deferred.allowed_shortcuts(self.guest.vcpu[0].at))


@pytest.fixture
def queue() -> Iterator[Queue]:
    made = Queue()
    yield made
    made.machine.close()


def test_they_are_made_in_order(queue: Queue) -> None:
    mapped = queue.page << 12 | USER
    queue.carry_out(queue.request(5, mapped), queue.request(6, mapped), queue.request(5, 0))
    assert (queue.entry(5), queue.entry(6)) == (0, mapped)
    page = queue.machine.frames[queue.page]
    assert (page.type, page.type_refs, page.refs) == (WRITABLE, 1, 2)
    assert queue.guest.rec.nr_pt_updates == 3
    assert queue.shortcuts() == ABSENT_VCPUS | UPDATES


def test_one_that_is_refused_is_noted_and_ends_the_trust_but_not_those_behind_it(queue: Queue) -> None:
    foreign = queue.machine.alloc(2)
    queue.carry_out(queue.request(5, foreign << 12 | USER), queue.request(6, queue.page << 12 | USER))
    assert (queue.entry(5), queue.entry(6)) == (0, queue.page << 12 | USER)
    assert queue.vcpu.good_updates == NEVER_TRUSTED
    assert (queue.vcpu.refused.answer, queue.vcpu.refused.args[0]) == (-EBUSY, queue.request(5, 0)[0])
    assert queue.shortcuts() == ABSENT_VCPUS


@pytest.mark.parametrize(
    "change",
    [{"type_refs": 0}, {"type": L2}, {"type": WRITABLE}, {"owner": 2}, {"flags": 1}],
    ids=["no table any more", "an L2 table now", "mapped writable now", "another domain's now", "not validated now"],
)
def test_a_table_that_has_become_something_else_is_left_alone(queue: Queue, change: dict[str, int]) -> None:
    for name, value in change.items():
        setattr(queue.frame, name, value)
    queue.carry_out(queue.request(5, queue.page << 12 | USER))
    assert queue.entry(5) == 0
    assert queue.machine.frames[queue.page].refs == 1
    assert queue.vcpu.refused.answer == -EINVAL


@pytest.mark.parametrize("command", [1, 3, 7])
def test_what_is_no_update_of_a_table_is_refused(queue: Queue, command: int) -> None:
    queue.carry_out(queue.request(5, queue.page << 12 | USER, command))
    assert queue.entry(5) == 0
    assert queue.vcpu.refused.answer == -EINVAL


def test_a_table_beyond_the_machines_memory_is_refused(queue: Queue) -> None:
    queue.carry_out((queue.machine.host.nr_frames << 12, PRESENT), (0xFFFFFFFFFFFFF000, PRESENT))
    assert queue.vcpu.refused.answer == -EINVAL


def test_trust_is_earned_by_single_updates_and_lost_by_one_refusal(queue: Queue) -> None:
    at = queue.guest.vcpu[0].at
    queue.vcpu.good_updates = 0
    for _ in range(TRUSTED - 1):
        deferred.note_update(at, 1, queue.table, 0)
    deferred.note_update(at, 2, queue.table, 0)
    assert queue.shortcuts() == ABSENT_VCPUS
    deferred.note_update(at, 1, queue.table, 0)
    assert queue.shortcuts() == ABSENT_VCPUS | UPDATES
    deferred.note_update(at, 1, queue.table, 0)
    assert queue.named == [queue.table]
    deferred.note_update(at, 1, queue.table, -EINVAL)
    for _ in range(TRUSTED + 1):
        deferred.note_update(at, 1, queue.table, 0)
    assert queue.shortcuts() == ABSENT_VCPUS
    assert queue.named == [queue.table]


def test_an_engine_that_answers_nothing_itself_is_not_given_a_table(queue: Queue) -> None:
    queue.machine.ops.defer_table = None
    queue.vcpu.good_updates = 0
    deferred.note_update(queue.guest.vcpu[0].at, 1, queue.table, 0)
    assert queue.vcpu.good_updates == 0


def test_where_there_are_processes_updates_are_put_off_from_a_fault_of_theirs_to_the_next_exit(queue: Queue) -> None:
    at = queue.guest.vcpu[0].at
    deferred.begin_exit(at)
    assert queue.shortcuts() == ABSENT_VCPUS | UPDATES, "its kernel was left"
    queue.vcpu.cpu.user = 1
    deferred.begin_exit(at)
    queue.vcpu.cpu.user = 0
    assert queue.shortcuts() == ABSENT_VCPUS
    queue.vcpu.serves_fault = SERVES_NOW
    assert queue.shortcuts() == ABSENT_VCPUS | UPDATES
    deferred.begin_exit(at)
    assert queue.shortcuts() == ABSENT_VCPUS


@pytest.mark.parametrize(
    ("count", "answer", "in_multicall", "goes_on"),
    [(1, 0, 0, True), (2, 0, 0, False), (1, 0, 1, False), (1, -EINVAL, 0, False)],
    ids=["a single one", "two at once", "in a multicall", "refused"],
)
def test_a_fault_is_still_served_after_single_updates(
    queue: Queue, count: int, answer: int, in_multicall: int, goes_on: bool
) -> None:
    at = queue.guest.vcpu[0].at
    queue.vcpu.ran_processes, queue.vcpu.serves_fault = 1, SERVES_NOW
    for _ in range(3):
        deferred.begin_exit(at)
        queue.vcpu.in_multicall = in_multicall
        deferred.note_update(at, count, queue.table, answer)
        assert (queue.shortcuts() == ABSENT_VCPUS | UPDATES) is goes_on


@pytest.mark.parametrize(("vector", "process", "served"), [(14, True, True), (14, False, False), (0, True, False)])
def test_only_a_page_fault_of_a_process_is_served_so(queue: Queue, vector: int, process: bool, served: bool) -> None:
    stack = queue.guest.page() + 0x800
    queue.vcpu.ran_processes = 1
    queue.vcpu.serves_fault = SERVES_NOW
    queue.vcpu.cpu.gpr[RSP] = queue.vcpu.kernel_sp = stack
    queue.vcpu.traps[vector].address = 0x5000
    queue.vcpu.cpu.user = process
    deferred.begin_exit(queue.guest.vcpu[0].at)
    traps.exception(queue.machine.at, queue.guest.vcpu[0].at, vector, 2, 0x1000)
    assert queue.vcpu.cpu.rip == 0x5000
    assert (queue.shortcuts() == ABSENT_VCPUS | UPDATES) is served


def test_nothing_is_put_off_under_a_trace(queue: Queue) -> None:
    queue.machine.host.trace_on = 1
    assert queue.shortcuts() == 0


def test_nothing_is_put_off_where_another_vcpu_would_not_see_it() -> None:
    machine = Machine()
    guest = Guest(machine, vcpus=2)
    guest.vcpu[0].rec.good_updates = TRUSTED
    assert deferred.allowed_shortcuts(guest.vcpu[0].at) == 0
    machine.close()


def test_a_timer_may_be_set_without_an_exit_where_there_will_be_one_before_it_is_due(queue: Queue) -> None:
    cpu = queue.vcpu.cpu
    assert not queue.shortcuts() & TIMER
    queue.vcpu.expected_timer = 9_000_000
    assert queue.shortcuts() & TIMER
    assert cpu.timer_from == 9_000_000 - XENS_TIMER_SLOP
    queue.machine.host.trace_on = 1
    assert queue.shortcuts() == 0
    queue.machine.host.trace_on = 0
    queue.guest.rec.nr_vcpus = 2
    assert queue.shortcuts() == 0


@pytest.mark.parametrize(
    ("asked", "kept"), [(9_000_000, 9_000_000), (1, 1), (2**63 - 1, 2**63 - 1), (2**63, 1), (2**64 - 1, 1)]
)
def test_whatever_a_guest_has_put_where_its_timer_is_taken_down_sets_its_timer(
    queue: Queue, asked: int, kept: int
) -> None:
    queue.vcpu.expected_timer = 9_000_000
    queue.vcpu.cpu.timer_set = asked
    deferred.take_timer(queue.guest.vcpu[0].at)
    assert (queue.vcpu.singleshot, queue.vcpu.cpu.timer_set) == (kept, 0)
    # It stands where its physical CPU finds it.
    assert queue.vcpu.timer_due == kept


def left_process(queue: Queue, *, ran: bool) -> None:
    """An exit in a process, unless that was entered just now; either way its kernel is entered by an exception."""
    vcpu, at = queue.vcpu, queue.guest.vcpu[0].at
    vcpu.info_mfn = queue.machine.alloc(1)
    vcpu.cpu.has_shortcuts = 1
    vcpu.cpu.seg[1].flags = 0x00A0FB00
    vcpu.kernel_sp = queue.guest.page() + 0x800
    vcpu.traps[0].address = 0x5000
    vcpu.cpu.rip = 0x2000
    queue.guest.vcpu[0].info[1] = 0
    vcpu.cpu.user = ran
    deferred.begin_exit(at)
    vcpu.cpu.user = 1
    traps.exception(queue.machine.at, at, 0, 0, 0)
    assert (vcpu.cpu.rip, vcpu.cpu.user) == (0x5000, 0)


def test_a_return_to_a_process_that_was_left_needs_no_exit(queue: Queue) -> None:
    left_process(queue, ran=True)
    assert queue.shortcuts() & RETURN
    deferred.begin_exit(queue.guest.vcpu[0].at)
    assert not queue.shortcuts() & RETURN, "its kernel was left since"


def test_a_return_to_a_process_that_was_not_left_but_only_entered_needs_one(queue: Queue) -> None:
    left_process(queue, ran=True)
    left_process(queue, ran=False)
    assert not queue.shortcuts() & RETURN
