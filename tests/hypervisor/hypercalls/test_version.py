"""xen_version: what a guest learns about the hypervisor, and what it does not."""

from __future__ import annotations

import ctypes

import pytest

from paravirt.abi import features as xenfeat
from paravirt.abi import version as abi
from paravirt.abi.errno import EFAULT, EINVAL, ENOSYS, EPERM
from paravirt.abi.version import XenCompileInfo, XenFeatureInfo, XenPlatformParameters
from paravirt.abi.xen import HYPERCALLS, VMASST_TYPE_pae_extended_cr3

from .fakes import BAD, FakeDomain, FakeHost, FakeVcpu

XEN_VERSION = HYPERCALLS["xen_version"]


def features(vcpu: FakeVcpu, index: int = 0) -> set[int]:
    """The numbers of the features in one word of bits."""
    where = vcpu.put(XenFeatureInfo(submap_idx=index))
    assert vcpu.call(XEN_VERSION, abi.XENVER_get_features, where) == 0
    bits = vcpu.read_struct(where, XenFeatureInfo).submap
    return {number for number in range(32) if bits >> number & 1}


def test_it_is_xen_4_17(vcpu: FakeVcpu) -> None:
    assert divmod(vcpu.call(XEN_VERSION, abi.XENVER_version, 0), 1 << 16) == (4, 17)


@pytest.mark.parametrize(
    ("operation", "text", "length"),
    [
        (abi.XENVER_extraversion, ".paravirt", abi.XEN_EXTRAVERSION_LEN),
        (abi.XENVER_capabilities, "xen-3.0-x86_64 ", abi.XEN_CAPABILITIES_INFO_LEN),
        (abi.XENVER_changeset, "unavailable", abi.XEN_CHANGESET_INFO_LEN),
        (abi.XENVER_commandline, "<denied>", len("<denied>") + 1),
    ],
)
def test_texts_and_their_lengths(vcpu: FakeVcpu, operation: int, text: str, length: int) -> None:
    where = vcpu.put(b"\xaa" * (length + 1))
    assert vcpu.call(XEN_VERSION, operation, where) == 0
    assert vcpu.copy_from_guest(where, length + 1) == text.encode().ljust(length, b"\0") + b"\xaa"


def test_compile_info_tells_nothing_of_the_host(vcpu: FakeVcpu) -> None:
    where = vcpu.put(b"\xaa" * ctypes.sizeof(XenCompileInfo))
    assert vcpu.call(XEN_VERSION, abi.XENVER_compile_info, where) == 0
    info = vcpu.read_struct(where, XenCompileInfo)
    assert info.compile_by == b"paravirt"
    assert info.compile_domain == info.compile_date == b""


def test_platform_parameters_say_where_xen_begins(vcpu: FakeVcpu) -> None:
    where = vcpu.map()
    assert vcpu.call(XEN_VERSION, abi.XENVER_platform_parameters, where) == 0
    assert vcpu.read_struct(where, XenPlatformParameters).virt_start == 0xFFFF_8000_0000_0000


def test_features_are_those_of_an_unprivileged_guest(vcpu: FakeVcpu) -> None:
    assert features(vcpu) == {
        xenfeat.XENFEAT_mmu_pt_update_preserve_ad,
        xenfeat.XENFEAT_highmem_assist,
        xenfeat.XENFEAT_gnttab_map_avail_bits,
        xenfeat.XENFEAT_memory_op_vnode_supported,
        xenfeat.XENFEAT_direct_mapped,
    }


def test_answers_are_written_and_nothing_behind_them(vcpu: FakeVcpu) -> None:
    for operation, size in (
        (abi.XENVER_compile_info, ctypes.sizeof(XenCompileInfo)),
        (abi.XENVER_platform_parameters, ctypes.sizeof(XenPlatformParameters)),
        (abi.XENVER_guest_handle, 16),
    ):
        where = vcpu.put(b"\xaa" * (size + 1))
        assert vcpu.call(XEN_VERSION, operation, where) == 0
        written = vcpu.copy_from_guest(where, size + 1)
        assert written[size] == 0xAA
        assert written[:size] != b"\xaa" * size


def test_a_word_of_features_that_is_none_is_not_answered(vcpu: FakeVcpu) -> None:
    request = vcpu.put(XenFeatureInfo(submap_idx=1, submap=0x55), writable=False)
    assert vcpu.call(XEN_VERSION, abi.XENVER_get_features, request) == -EINVAL
    assert vcpu.read_struct(request, XenFeatureInfo).submap == 0x55


def test_high_page_directories_are_a_feature_once_asked_for(vcpu: FakeVcpu) -> None:
    before = features(vcpu)
    vcpu.domain.vm_assist |= 1 << VMASST_TYPE_pae_extended_cr3
    assert features(vcpu) - before == {xenfeat.XENFEAT_pae_pgdir_above_4gb}


def test_domain_0_knows_that_it_is(vcpu: FakeVcpu, host: FakeHost) -> None:
    privileged = FakeDomain(host, 0, pages=1, is_privileged=True).vcpus[0]
    assert features(privileged) - features(vcpu) == {xenfeat.XENFEAT_dom0}
    where = privileged.put(b"\xaa" * 9)
    assert privileged.call(XEN_VERSION, abi.XENVER_commandline, where) == 0
    assert privileged.copy_from_guest(where, 1) == b"\0"


def test_a_feature_request_has_to_be_writable(vcpu: FakeVcpu) -> None:
    request = vcpu.put(XenFeatureInfo(), writable=False)
    assert vcpu.call(XEN_VERSION, abi.XENVER_get_features, request) == -EFAULT
    assert vcpu.call(XEN_VERSION, abi.XENVER_get_features, vcpu.put(XenFeatureInfo(submap_idx=1))) == -EINVAL


def test_page_size_takes_no_pointer(vcpu: FakeVcpu) -> None:
    assert vcpu.call(XEN_VERSION, abi.XENVER_pagesize, 0) == 4096
    assert vcpu.call(XEN_VERSION, abi.XENVER_pagesize, vcpu.map()) == -EINVAL


def test_the_handle_is_the_domains(vcpu: FakeVcpu) -> None:
    vcpu.domain.state.handle = bytes(range(16))
    where = vcpu.map()
    assert vcpu.call(XEN_VERSION, abi.XENVER_guest_handle, where) == 0
    assert vcpu.copy_from_guest(where, 17) == bytes(range(16)) + b"\0"


def test_the_build_is_not_for_guests(vcpu: FakeVcpu) -> None:
    assert vcpu.call(XEN_VERSION, abi.XENVER_build_id, vcpu.map()) == -EPERM
    assert vcpu.call(XEN_VERSION, abi.XENVER_build_id, BAD) == -EPERM


def test_operations_that_are_none(vcpu: FakeVcpu) -> None:
    assert vcpu.call(XEN_VERSION, abi.XENVER_build_id + 1, vcpu.map()) == -ENOSYS
    assert vcpu.call(XEN_VERSION, 0xFFFF_FFFF, vcpu.map()) == -ENOSYS
    assert vcpu.call(XEN_VERSION, 1 << 32 | abi.XENVER_version, 0) == vcpu.call(XEN_VERSION, abi.XENVER_version, 0)


@pytest.mark.parametrize("operation", [1, 2, 3, 4, 5, 6, 8, 9])
def test_answers_need_a_place(vcpu: FakeVcpu, operation: int) -> None:
    assert vcpu.call(XEN_VERSION, operation, BAD) == -EFAULT
