"""The table of cpuid where processes see the host's own vector state, and XCR0, which a guest's kernel sets there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from paravirt import Machine
from paravirt.hypervisor.cpuid import FEATURES_ECX, POLICY, VECTOR_1_ECX, XSAVE, with_vector_state

from .test_emulation import RAX, RBX, RCX, RDX, UD, World, emulate

Leaves = dict[tuple[int, int], tuple[int, int, int, int]]
ALL = 0xFFFFFFFF


def host(states: int = 0xE7, features: int = ALL) -> Leaves:
    """A processor that has everything, with the states of XCR0 behind each other."""
    leaves: Leaves = {(13, state): (0, 0, 0, 0) for state in range(32)}
    leaves |= {(1, 0): (0, 0, features, 0), (7, 0): (0, ALL, ALL, ALL), (13, 0): (states, 9999, 9999, 0)}
    leaves[13, 1] = (0xF, 9999, 0x1800, 0)
    leaves |= {(13, 2): (256, 576, 0, 0), (13, 5): (64, 832, 0, 0)}
    leaves |= {(13, 6): (512, 896, 0, 0), (13, 7): (1024, 1408, 0, 0)}
    return leaves


@pytest.mark.parametrize("native", [{}, host(features=0), host(features=1 << 26)])
def test_without_xsave_nothing_changes(native: Leaves) -> None:
    assert with_vector_state(native) == (0, POLICY)


def test_what_has_no_state_stays_hidden() -> None:
    states, table = with_vector_state(host())
    assert states == 0xE7
    assert table[1, None][2] == FEATURES_ECX | XSAVE | VECTOR_1_ECX
    assert not table[1, None][2] & (1 << 30 | 1 << 3), "RDRAND, MONITOR"
    assert not table[7, 0][1] & (1 | 1 << 9 | 1 << 20), "FSGSBASE, ERMS, SMAP"
    assert not table[7, 0][2] & (1 << 3 | 1 << 4 | 1 << 22), "PKU, OSPKE, RDPID"
    assert table[0, None][0] == 13


def test_the_leaf_of_the_save_area() -> None:
    _, table = with_vector_state(host())
    assert table[13, 0] == (0xE7, 2432, 2432, 0)
    assert table[13, 1] == (1, 0, 0, 0), "XSAVEOPT, and no XSAVEC or XSAVES"
    assert table[13, 7] == (1024, 1408, 0, 0)
    assert (13, 9) not in table


def test_states_that_are_not_kept() -> None:
    """Protection keys, and the tiles whose use a process has to ask for."""
    states, table = with_vector_state(host(states=0x602E7))
    assert states == table[13, 0][0] == 0xE7
    assert with_vector_state(host(states=7))[1][13, 0] == (7, 832, 832, 0)
    assert with_vector_state(host(states=3))[1][13, 0] == (3, 576, 576, 0)


CR4, OSXSAVE = 0x620, 1 << 18
MOV_RAX_CR4, XSETBV, XGETBV = "0f22e0", "0f01d1", "0f01d0"


@pytest.fixture
def world() -> Iterator[World]:
    """A machine whose guests may keep x87, SSE, AVX and AVX-512."""
    made = World()
    made.machine.host.xcr0_states = 0xE7
    made.vcpu.cr4, made.vcpu.xcr0 = CR4, 1
    yield made
    made.machine.close()


def xsetbv(world: World, value: int, number: int = 0) -> bool:
    world.cpu.gpr[RAX], world.cpu.gpr[RDX], world.cpu.gpr[RCX] = value & ALL, value >> 32, number
    return world.run(XSETBV, emulate.emulate_privileged)


@pytest.mark.parametrize("states", [0, 0xE7])
def test_xsave_is_switched_on_where_it_is_offered(world: World, states: int) -> None:
    world.machine.host.xcr0_states = states
    world.cpu.gpr[RAX] = OSXSAVE | 8
    assert world.run(MOV_RAX_CR4, emulate.emulate_privileged)
    assert world.vcpu.cr4 == CR4 | 8 | (OSXSAVE if states else 0)


def test_xcr0_is_undefined_until_then(world: World) -> None:
    assert xsetbv(world, 3)
    assert world.fault is not None
    assert world.fault[0] == UD
    assert world.vcpu.xcr0 == 1


@pytest.mark.parametrize("value", [1, 3, 7, 0xE7])
def test_what_xcr0_takes(world: World, value: int) -> None:
    world.vcpu.cr4 |= OSXSAVE
    assert xsetbv(world, value)
    assert world.fault is None
    assert world.vcpu.xcr0 == value


@pytest.mark.parametrize(
    ("value", "number"),
    [(0, 0), (2, 0), (5, 0), (0xE3, 0), (0x27, 0), (0xA7, 0), (0xC7, 0), (0xF, 0), (3 | 1 << 32, 0), (3, 1)],
)
def test_what_xcr0_does_not_take(world: World, value: int, number: int) -> None:
    """x87 is always on; AVX has SSE below it, and AVX-512 AVX; its parts go together; others are not offered."""
    world.vcpu.cr4 |= OSXSAVE
    assert not xsetbv(world, value, number)
    assert world.vcpu.xcr0 == 1


@pytest.mark.parametrize("code", [XGETBV, "0f01f9", "0f01d9", "0f0111"])
def test_its_neighbours_are_not_carried_out(world: World, code: str) -> None:
    world.vcpu.cr4 |= OSXSAVE
    world.cpu.gpr[RAX] = 3
    assert not world.run(code, emulate.emulate_privileged)


def test_a_process_does_not_set_it(world: World) -> None:
    world.vcpu.cr4 |= OSXSAVE
    world.cpu.user = 1
    assert not xsetbv(world, 3)
    assert world.vcpu.xcr0 == 1


@pytest.mark.parametrize(("xcr0", "size"), [(1, 576), (3, 576), (7, 832), (0xE7, 2432)])
def test_the_save_area_is_as_large_as_what_is_on(world: World, xcr0: int, size: int) -> None:
    with Machine(memory=16) as machine:
        machine.host.offer_native_state(host())  # the table is one for all machines
    world.vcpu.xcr0 = xcr0
    world.cpu.gpr[RAX], world.cpu.gpr[RCX] = 13, 0
    emulate.answer_cpuid(*world.who)
    assert [world.cpu.gpr[register] for register in (RAX, RBX, RCX, RDX)] == [0xE7, size, 2432, 0]
    world.machine.host.xcr0_states = 0
    world.cpu.gpr[RAX], world.cpu.gpr[RCX] = 13, 0
    emulate.answer_cpuid(*world.who)
    assert world.cpu.gpr[RAX] == world.cpu.gpr[RBX] == 0
