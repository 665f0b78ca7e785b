"""set_trap_table, set_callbacks, callback_op, nmi_op."""

from __future__ import annotations

import pytest

from paravirt.abi.arch_x86 import FLAT_KERNEL_CS, TrapInfo
from paravirt.abi.callback import CALLBACKOP_register, CALLBACKOP_unregister, CallbackRegister, CallbackUnregister
from paravirt.abi.errno import EFAULT, EINVAL, ENOSYS
from paravirt.abi.nmi import XENNMI_register_callback, XENNMI_unregister_callback, XennmiCallback
from paravirt.abi.xen import HYPERCALLS
from paravirt.hypervisor.hypercalls.registry import PREEMPT_AFTER

from .fakes import BAD, FakeVcpu

SET_TRAP_TABLE = HYPERCALLS["set_trap_table"]
SET_CALLBACKS = HYPERCALLS["set_callbacks"]
CALLBACK_OP = HYPERCALLS["callback_op"]
NMI_OP = HYPERCALLS["nmi_op"]
ENTRY = 0xFFFF_FFFF_8100_0000
NOT_CANONICAL = 1 << 62


def table(*entries: tuple[int, int, int, int]) -> bytes:
    return b"".join(bytes(TrapInfo(vector, flags, cs, address)) for vector, flags, cs, address in entries)


def test_a_table_ends_at_address_zero(vcpu: FakeVcpu) -> None:
    where = vcpu.put(table((3, 3, 0xE033, ENTRY), (14, 4, 0xE030, ENTRY + 1), (0, 0, 0, 0), (6, 0, 1, 2)))
    assert vcpu.call(SET_TRAP_TABLE, where) == 0
    assert vcpu.traps == {3: (0xE033, 3, ENTRY), 14: (0xE033, 4, ENTRY + 1)}


def test_no_table_removes_every_gate(vcpu: FakeVcpu) -> None:
    vcpu.call(SET_TRAP_TABLE, vcpu.put(table((2, 0, 0xE033, ENTRY), (255, 0, 0xE033, ENTRY), (0, 0, 0, 0))))
    assert vcpu.traps[2] == (0xE033, 0, ENTRY)
    assert vcpu.call(SET_TRAP_TABLE, 0) == 0
    assert len(vcpu.traps) == 256
    assert set(vcpu.traps.values()) == {(0, 0, 0)}


def test_entries_before_a_bad_one_count(vcpu: FakeVcpu) -> None:
    where = vcpu.put(table((1, 0, 0xE033, ENTRY), (2, 0, 0xE033, NOT_CANONICAL), (0, 0, 0, 0)))
    assert vcpu.call(SET_TRAP_TABLE, where) == -EINVAL
    assert vcpu.traps == {1: (0xE033, 0, ENTRY)}


def test_a_table_that_runs_off_its_page_faults(vcpu: FakeVcpu) -> None:
    assert vcpu.call(SET_TRAP_TABLE, vcpu.put(table((1, 0, 0xE033, ENTRY)), at_end=True)) == -EFAULT
    assert vcpu.traps == {1: (0xE033, 0, ENTRY)}
    assert vcpu.call(SET_TRAP_TABLE, BAD) == -EFAULT


def test_a_long_table_is_preempted_and_goes_on(vcpu: FakeVcpu) -> None:
    entries = [(n % 256, 0, 0xE033, ENTRY + n) for n in range(2 * PREEMPT_AFTER + 3)]
    assert vcpu.call(SET_TRAP_TABLE, vcpu.put(table(*entries, (0, 0, 0, 0)))) == 0
    assert vcpu.continuations == 2
    for n in range(len(entries) - 256, len(entries)):
        assert vcpu.traps[n % 256] == (0xE033, 0, ENTRY + n)


def test_set_callbacks_takes_what_is_canonical(vcpu: FakeVcpu) -> None:
    assert vcpu.call(SET_CALLBACKS, ENTRY, NOT_CANONICAL, ENTRY + 2) == 0
    assert vcpu.callbacks == {0: (ENTRY, 1), 2: (ENTRY + 2, 0)}


@pytest.mark.parametrize(
    ("kind", "flags", "kept"),
    [(0, 0, 1), (1, 1, 1), (1, 0, 0), (2, 0xFFFE, 0), (2, 0xFFFF, 1), (5, 1, 1), (7, 0, 0)],
)
def test_callbacks_are_registered_with_their_mask(vcpu: FakeVcpu, kind: int, flags: int, kept: int) -> None:
    request = vcpu.put(CallbackRegister(kind, flags, ENTRY))
    assert vcpu.call(CALLBACK_OP, CALLBACKOP_register, request) == 0
    assert vcpu.callbacks == {kind: (ENTRY, kept)}


@pytest.mark.parametrize("kind", [3, 6, 8, 0xFFFF])
def test_callbacks_of_no_kind(vcpu: FakeVcpu, kind: int) -> None:
    assert vcpu.call(CALLBACK_OP, CALLBACKOP_register, vcpu.put(CallbackRegister(kind, 0, ENTRY))) == -ENOSYS
    assert vcpu.call(CALLBACK_OP, CALLBACKOP_unregister, vcpu.put(CallbackUnregister(kind))) == -ENOSYS
    # The address is looked at before the kind.
    request = vcpu.put(CallbackRegister(kind, 0, NOT_CANONICAL))
    assert vcpu.call(CALLBACK_OP, CALLBACKOP_register, request) == -EINVAL
    assert vcpu.callbacks == {}


@pytest.mark.parametrize("kind", [0, 1, 2, 5, 7])
def test_callbacks_that_must_stay(vcpu: FakeVcpu, kind: int) -> None:
    vcpu.call(CALLBACK_OP, CALLBACKOP_register, vcpu.put(CallbackRegister(kind, 1, ENTRY)))
    assert vcpu.call(CALLBACK_OP, CALLBACKOP_unregister, vcpu.put(CallbackUnregister(kind))) == -EINVAL
    assert vcpu.callbacks == {kind: (ENTRY, 1)}


def test_the_nmi_callback_can_go(vcpu: FakeVcpu) -> None:
    vcpu.call(CALLBACK_OP, CALLBACKOP_register, vcpu.put(CallbackRegister(4, 0, ENTRY)))
    assert vcpu.traps[2] == (FLAT_KERNEL_CS, 4, ENTRY)
    assert vcpu.call(CALLBACK_OP, CALLBACKOP_unregister, vcpu.put(CallbackUnregister(4))) == 0
    assert vcpu.callbacks == {}
    assert vcpu.traps[2] == (0, 0, 0)


@pytest.mark.parametrize("operation", [CALLBACKOP_register, CALLBACKOP_unregister])
def test_callback_requests_that_cannot_be_read(vcpu: FakeVcpu, operation: int) -> None:
    assert vcpu.call(CALLBACK_OP, operation, BAD) == -EFAULT


def test_callback_operations_that_are_none(vcpu: FakeVcpu) -> None:
    assert vcpu.call(CALLBACK_OP, 2, BAD) == -ENOSYS
    # The operation is an int: what is above its 32 bits does not count.
    assert vcpu.call(CALLBACK_OP, 1 << 32 | CALLBACKOP_register, BAD) == -EFAULT


def test_the_older_way_to_an_nmi_handler(vcpu: FakeVcpu) -> None:
    assert vcpu.call(NMI_OP, XENNMI_register_callback, vcpu.put(XennmiCallback(ENTRY, 0))) == 0
    assert vcpu.traps[2] == (FLAT_KERNEL_CS, 4, ENTRY)
    assert vcpu.call(NMI_OP, XENNMI_register_callback, vcpu.put(XennmiCallback(NOT_CANONICAL, 0))) == -EINVAL
    assert vcpu.traps[2] == (FLAT_KERNEL_CS, 4, ENTRY)
    assert vcpu.call(NMI_OP, XENNMI_register_callback, BAD) == -EFAULT
    assert vcpu.call(NMI_OP, XENNMI_unregister_callback, BAD) == 0
    assert vcpu.traps[2] == (0, 0, 0)
    assert vcpu.call(NMI_OP, 2, BAD) == -ENOSYS
