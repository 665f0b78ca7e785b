"""What a domain's and a vcpu's view refuse: the Python families act through them, and the toolstack."""

from __future__ import annotations

import ctypes
import struct
from typing import Any

import pytest

from paravirt.abi import errno, grant_table, physdev, xen
from paravirt.abi.arch_x86 import VcpuGuestContext, VGCF_in_kernel
from paravirt.abi.callback import CALLBACKTYPE_event, CALLBACKTYPE_syscall
from paravirt.abi.sched import SCHEDOP_block, SHUTDOWN_crash
from paravirt.abi.vcpu import VCPUOP_down, VCPUOP_initialise, VCPUOP_up
from paravirt.errors import HypervisorBug, UserError
from paravirt.hypervisor.audit import require_clean
from paravirt.hypervisor.hypercalls.grant_frames import grants_of
from paravirt.hypervisor.views import Domain, Host
from paravirt.hypervisor.views import domain as domain_view
from paravirt.machine.memory import Memory
from paravirt.machine.unicorn.engine import UnicornEngine

from . import native
from .test_grants import ARGUMENTS, CALLS, DEVICE, FRAMES, Guest, World

NOT_MAPPED = ARGUMENTS + 5 * 4096


def take_all(domain: Domain) -> None:
    """Every free frame becomes the domain's."""
    domain.max_pages = FRAMES
    while domain.alloc_extent(0) is not None:
        pass
    assert domain.host.free_frames == 0


# --- memory -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [0, 1])
def test_a_domain_gets_as_many_frames_as_its_limit_allows(guest: Guest, order: int) -> None:
    domain = guest.domain
    domain.max_pages = domain.tot_pages + (1 << order)
    assert domain.alloc_extent(order) is not None
    assert domain.alloc_extent(order) is None
    assert domain.tot_pages == domain.max_pages
    assert domain.alloc_extent(order, beyond_limit=True) is not None


@pytest.mark.parametrize("address_bits", [0, 32])
def test_a_machine_without_free_frames_gives_none(world: World, guest: Guest, address_bits: int) -> None:
    take_all(guest.domain)
    had = guest.domain.tot_pages
    assert guest.domain.alloc_extent(0, address_bits=address_bits, beyond_limit=True) is None
    assert guest.domain.alloc_extent(3, beyond_limit=True) is None
    assert guest.domain.tot_pages == had
    with pytest.raises(UserError, match="no free memory"):
        guest.domain.share_frame()
    require_clean(world.host)


def test_a_grant_table_does_not_grow_without_memory(guest: Guest) -> None:
    take_all(guest.domain)
    request = grant_table.GnttabSetupTable(xen.DOMID_SELF, 2, 0, 0)
    assert guest.request(grant_table.GNTTABOP_setup_table, request).status == grant_table.GNTST_general_error
    assert not guest.domain.is_shut_down


def test_a_frame_is_given_back_once(world: World, guest: Guest) -> None:
    other = Guest(world)
    mfn, had = guest.mfns[-1], guest.domain.tot_pages
    assert not other.domain.release_page(mfn)
    assert guest.domain.release_page(mfn)
    assert not guest.domain.release_page(mfn)
    assert guest.domain.tot_pages == had - 1


def test_a_map_of_interrupts_is_a_writable_frame_of_ones_own_and_the_only_one(world: World, guest: Guest) -> None:
    def set_map(mfn: int) -> int:
        return guest.call(
            CALLS["physdev_op"], physdev.PHYSDEVOP_pirq_eoi_gmfn_v2, guest.put(bytes(physdev.PhysdevPirqEoiGmfn(mfn)))
        )

    foreign, table = Guest(world).mfns[-1], guest.mfns[0]
    for mfn in (foreign, table, 1 << 40):
        assert set_map(mfn) == -errno.EINVAL
    assert set_map(guest.mfns[-1]) == 0
    assert set_map(guest.mfns[-2]) == -errno.EBUSY
    assert (guest.counts(guest.mfns[-1]), guest.counts(guest.mfns[-2])) == ((2, 1), (1, 0))
    require_clean(world.host)


# --- the beginning and the end of a domain ------------------------------------------------------------------


def test_a_domain_fits_or_is_not_made(world: World) -> None:
    for pages in (FRAMES, world.host.free_frames, world.host.free_frames - 64):
        with pytest.raises(UserError, match="free memory"):
            world.host.create_domain(9, pages, 1)
    assert list(world.host.domains) == []
    filler = world.host.create_domain(8, world.host.free_frames - 65 - 1, 1)
    take_all(filler)
    with pytest.raises(UserError, match="free memory"):
        world.host.create_domain(9, 1, 1)


def test_the_least_machine_holds_its_own_tables() -> None:
    memory = Memory(16)
    assert Host(memory, [UnicornEngine(memory.address, memory.size, True)], virtual_clock=True).free_frames > 0
    with pytest.raises(UserError, match="possible"):
        Memory(15)


def test_the_number_of_a_domain_that_has_not_quite_ended_is_taken(world: World) -> None:
    granter, user = Guest(world), Guest(world)
    granter.grant(20, user.domid, granter.mfns[-1])
    mapped = user.map(granter.domid, 20, flags=DEVICE)
    assert mapped.status == 0
    granter.domain.destroy()
    with pytest.raises(HypervisorBug, match="not quite ended"):
        world.host.create_domain(granter.domid, 4, 1)
    assert user.unmap(mapped.handle, None, mapped.dev_bus_addr) == 0
    world.host.create_domain(granter.domid, 4, 1)


def test_initial_page_tables_that_do_not_validate_are_our_mistake(guest: Guest) -> None:
    plain = 6
    guest.world.memory.write(guest.mfns[plain] * 4096, struct.pack("<Q", guest.mfns[plain + 1] << 12 | 0x67))
    guest.world.memory.write(guest.mfns[plain + 1] * 4096, struct.pack("<Q", 1 << 40 | 0x67))
    with pytest.raises(HypervisorBug, match="do not validate"):
        guest.domain.pin_l4(plain)
    with pytest.raises(HypervisorBug, match="cannot be used"):
        guest.domain.set_context(rip=0, rsp=0, rsi=0, cr3_pfn=plain)


def test_a_domains_mappings_are_given_back_before_anything_else(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    granter, user = Guest(world), Guest(world)
    for ref in (20, 21, 22):
        granter.grant(ref, user.domid, granter.mfns[ref - 10])
        assert user.map(granter.domid, ref, flags=DEVICE).status == 0
    monkeypatch.setattr(domain_view, "MAPPINGS_AT_ONCE", 1)
    assert [user.domain.destroy_part() for _ in range(3)] == [False, False, True]
    assert [granter.flags(ref) & (grant_table.GTF_reading | grant_table.GTF_writing) for ref in (20, 21, 22)] == [0] * 3
    assert grants_of(granter.domain).active == {}


class SmallEngine:
    """An engine that has room for some virtual CPUs only."""

    def __init__(self, engine: UnicornEngine, vcpus: int) -> None:
        self._engine, self.handle, self.capabilities = engine, engine.handle, engine.capabilities
        ops = native.CpuOps.from_buffer_copy(ctypes.string_at(engine.ops_address, ctypes.sizeof(native.CpuOps)))
        kind = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
        made, room = kind(ops.new_state), iter(range(vcpus))
        self._new_state = kind(lambda engine, cpu: None if next(room, None) is None else made(engine, cpu))
        ops.new_state = ctypes.cast(self._new_state, ctypes.c_void_p).value
        self._ops, self.ops_address = ops, native.address(ops)


@pytest.mark.parametrize("room", [0, 1])
def test_an_engine_without_room_for_every_vcpu_leaves_nothing_of_the_domain(room: int) -> None:
    memory = Memory(FRAMES)
    engine: Any = SmallEngine(UnicornEngine(memory.address, memory.size, True), room)
    host = Host(memory, [engine], virtual_clock=True)
    free = host.free_frames
    with pytest.raises(UserError, match="no room for another virtual CPU"):
        host.create_domain(1, 4, 2)
    assert (host.free_frames, host.domains, host.zombies) == (free, {}, {})
    require_clean(host)


# --- a vcpu's state -----------------------------------------------------------------------------------------


def test_structures_come_from_where_the_guest_may_read_and_go_where_it_may_write(guest: Guest) -> None:
    hidden = 0xFFFF_8000_0000_0000
    for address in (NOT_MAPPED, hidden, 1 << 47):
        assert guest.call(CALLS["xen_version"], 1, address) == -errno.EFAULT
        assert guest.call(CALLS["set_trap_table"], address) == -errno.EFAULT


def test_only_callbacks_that_there_are_can_be_set(guest: Guest) -> None:
    vcpu = guest.domain.vcpus[0]
    assert vcpu.set_callback(CALLBACKTYPE_event, 0x1000, 1)
    assert vcpu.set_callback(CALLBACKTYPE_syscall, 0x2000, 0)
    assert not vcpu.set_callback(99, 0x3000, 0)


def test_debug_registers_that_are_none_hold_nothing(guest: Guest) -> None:
    vcpu = guest.domain.vcpus[0]
    assert [vcpu.get_debugreg(number) for number in (0, 7)] == [0, 0x400]
    assert vcpu.get_debugreg(8) is None
    assert guest.call(CALLS["get_debugreg"], 8) == -errno.ENODEV


def test_a_domain_that_did_not_crash_has_no_reason(guest: Guest) -> None:
    assert guest.domain.crash_reason is None


def test_who_asks_is_told_what_a_domain_and_its_vcpus_are_at(world: World) -> None:
    domain = world.host.create_domain(next(world.domids), 16, 1)
    vcpu = domain.vcpus[0]

    def states() -> tuple[bool, ...]:
        return (domain.is_paused, domain.is_shut_down, domain.is_dying, vcpu.is_up, vcpu.is_blocked)

    assert states() == (True, False, False, False, False)
    domain.unpause()
    assert states() == (False, False, False, False, False)
    guest = Guest(world)
    assert guest.domain.vcpus[0].is_up
    assert not guest.domain.is_privileged
    assert guest.call(CALLS["sched_op"], SCHEDOP_block) == 0
    assert guest.domain.vcpus[0].is_blocked
    domain.shutdown(SHUTDOWN_crash)
    assert states() == (False, True, False, False, False)
    domain.destroy()
    assert (domain.is_dying, domain.is_shut_down) == (True, True)


def test_a_vcpu_is_up_once_it_is_initialised_and_let_go(world: World) -> None:
    guest = Guest(world, 2)
    second = guest.domain.vcpus[1]
    context = bytes(VcpuGuestContext(ctrlreg=(0, 0, 0, guest.mfns[0] << 12), flags=VGCF_in_kernel))
    for page in range(2):
        assert guest.set_entry(page, guest.mfns[8 + page] << 12 | 0x67) == 0
        world.memory.write(guest.mfns[8 + page] * 4096, context[page * 4096 : page * 4096 + 4096])
    for command, argument, up in (
        (VCPUOP_initialise, guest.slot(0), False),
        (VCPUOP_up, 0, True),
        (VCPUOP_down, 0, False),
    ):
        assert guest.call(CALLS["vcpu_op"], command, 1, argument) == 0
        assert second.is_up == up


def test_a_vcpu_that_was_refused_nothing_has_no_refusal(guest: Guest) -> None:
    vcpu = guest.domain.vcpus[0]
    assert vcpu.refusal is None
    assert guest.set_entry(0, 1 << 40 | 0x67) < 0
    assert vcpu.refusal is not None
