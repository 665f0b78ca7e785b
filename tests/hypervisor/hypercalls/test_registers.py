"""Debug registers and vm_assist. What a debug register may hold is the compiled core's (guests/debugregs)."""

from __future__ import annotations

import pytest

from paravirt.abi.errno import EINVAL, ENODEV, ENOSYS, EPERM
from paravirt.abi.xen import HYPERCALLS, VMASST_CMD_disable, VMASST_CMD_enable

from .fakes import FakeVcpu

SET, GET, ASSIST = HYPERCALLS["set_debugreg"], HYPERCALLS["get_debugreg"], HYPERCALLS["vm_assist"]


def test_a_debug_register_keeps_what_is_set(vcpu: FakeVcpu) -> None:
    assert vcpu.call(SET, 2, 0x1234) == 0
    assert vcpu.call(GET, 2) == 0x1234
    assert vcpu.call(SET, 1 << 32 | 3, 5) == 0
    assert vcpu.debugregs == {2: 0x1234, 3: 5}


def test_refusals_of_the_core_are_the_calls(vcpu: FakeVcpu) -> None:
    assert vcpu.call(SET, 0, 1 << 62) == -EPERM
    assert vcpu.call(SET, 8, 0) == -ENODEV
    assert vcpu.call(GET, 8) == -ENODEV
    assert vcpu.call(GET, 2**64 - 1) == -ENODEV


def test_a_value_of_64_bits_comes_back_as_such(vcpu: FakeVcpu) -> None:
    vcpu.debugregs[1] = 0xFFFF_FFFF_8100_0000
    assert vcpu.call(GET, 1) % 2**64 == 0xFFFF_FFFF_8100_0000


@pytest.mark.parametrize("kind", [0, 1, 2, 3, 4, 5, 32])
def test_assists_go_on_and_off(vcpu: FakeVcpu, kind: int) -> None:
    vcpu.domain.vm_assist = 1 << 40
    assert vcpu.call(ASSIST, VMASST_CMD_enable, kind) == 0
    assert vcpu.domain.vm_assist == 1 << 40 | 1 << kind
    assert vcpu.call(ASSIST, VMASST_CMD_disable, kind) == 0
    assert vcpu.domain.vm_assist == 1 << 40
    assert vcpu.call(ASSIST, 2, kind) == -ENOSYS
    assert vcpu.domain.vm_assist == 1 << 40


@pytest.mark.parametrize("kind", [6, 7, 31, 33, 63, 64, 0xFFFF_FFFF])
def test_assists_that_a_64_bit_guest_has_not(vcpu: FakeVcpu, kind: int) -> None:
    for command in (VMASST_CMD_enable, VMASST_CMD_disable, 2):
        assert vcpu.call(ASSIST, command, kind) == -EINVAL
    assert vcpu.domain.vm_assist == 0


def test_the_kind_is_32_bits_wide(vcpu: FakeVcpu) -> None:
    assert vcpu.call(ASSIST, VMASST_CMD_enable, 1 << 32 | 4) == 0
    assert vcpu.domain.vm_assist == 1 << 4
