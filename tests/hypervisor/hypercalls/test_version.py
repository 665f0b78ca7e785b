"""xen_version: what a guest learns about the hypervisor, and what it does not."""

from __future__ import annotations

import ctypes

import pytest

from paravirt.abi import features as xenfeat
from paravirt.abi import version as xenver
from paravirt.abi.errno import EFAULT, EINVAL, ENOSYS, EPERM
from paravirt.abi.xen import (
    VMASST_CMD_enable,
    VMASST_TYPE_pae_extended_cr3,
    __HYPERVISOR_vm_assist,
    __HYPERVISOR_xen_version,
)

from .world import OF_XEN, UNMAPPED, World

TEXTS = {
    xenver.XENVER_extraversion: (xenver.XEN_EXTRAVERSION_LEN, b".paravirt"),
    xenver.XENVER_capabilities: (xenver.XEN_CAPABILITIES_INFO_LEN, b"xen-3.0-x86_64 "),
    xenver.XENVER_changeset: (xenver.XEN_CHANGESET_INFO_LEN, b"unavailable"),
}


def ask(world: World, operation: int, argument: int = 0) -> int:
    return world.call(__HYPERVISOR_xen_version, operation, argument)


def submap(world: World, index: int = 0) -> int:
    at = world.put(xenver.XenFeatureInfo(submap_idx=index))
    assert ask(world, xenver.XENVER_get_features, at) == 0
    return world.vcpu.read_struct(at, xenver.XenFeatureInfo).submap


def test_version_is_4_17(world: World) -> None:
    assert divmod(ask(world, xenver.XENVER_version), 1 << 16) == (4, 17)


@pytest.mark.parametrize("operation", TEXTS)
def test_texts_fill_their_field_with_zeros(world: World, operation: int) -> None:
    size, text = TEXTS[operation]
    at = world.put(b"\xaa" * (size + 1))
    assert ask(world, operation, at) == 0
    assert world.get(at, size) == text.ljust(size, b"\0")
    assert world.get(at + size, 1) == b"\xaa"


def test_compile_info_names_no_host(world: World) -> None:
    at = world.put(b"\xaa" * ctypes.sizeof(xenver.XenCompileInfo))
    assert ask(world, xenver.XENVER_compile_info, at) == 0
    info = world.vcpu.read_struct(at, xenver.XenCompileInfo)
    assert info.compile_by == b"paravirt"
    assert info.compile_domain == info.compile_date == b""


def test_command_line_is_denied(world: World) -> None:
    at = world.page()
    assert ask(world, xenver.XENVER_commandline, at) == 0
    assert world.get(at, 9) == b"<denied>\0"


def test_handle_is_the_domains(world: World) -> None:
    world.domain.state.handle = bytes(range(16))
    at = world.page()
    assert ask(world, xenver.XENVER_guest_handle, at) == 0
    assert world.get(at, 16) == bytes(range(16))


def test_features_are_those_of_a_guest_with_direct_paging(world: World) -> None:
    bits = submap(world)
    assert bits >> xenfeat.XENFEAT_mmu_pt_update_preserve_ad & 1
    for absent in ("auto_translated_physmap", "writable_page_tables", "hvm_callback_vector", "dom0"):
        assert not bits >> getattr(xenfeat, f"XENFEAT_{absent}") & 1, absent
    assert not bits >> xenfeat.XENFEAT_pae_pgdir_above_4gb & 1
    assert world.call(__HYPERVISOR_vm_assist, VMASST_CMD_enable, VMASST_TYPE_pae_extended_cr3) == 0
    assert submap(world) == bits | 1 << xenfeat.XENFEAT_pae_pgdir_above_4gb


def test_refusals(world: World) -> None:
    other_word = world.put(xenver.XenFeatureInfo(submap_idx=1))
    assert ask(world, xenver.XENVER_get_features, other_word) == -EINVAL
    assert ask(world, xenver.XENVER_pagesize) == 4096
    assert ask(world, xenver.XENVER_pagesize, world.page()) == -EINVAL
    assert ask(world, xenver.XENVER_build_id, world.page()) == -EPERM
    assert ask(world, 11, world.page()) == -ENOSYS
    assert ask(world, 1 << 32) == ask(world, 0), "the upper half of the operation counts for nothing"


@pytest.mark.parametrize("address", [UNMAPPED, OF_XEN, 0x0000_8000_0000_0000])
@pytest.mark.parametrize("operation", [1, 2, 3, 4, 5, 6, 8, 9])
def test_bad_pointers(world: World, operation: int, address: int) -> None:
    assert ask(world, operation, address) == -EFAULT
