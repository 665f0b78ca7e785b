"""Requests of grant_table_op, as a guest makes them."""

from __future__ import annotations

import ctypes
from typing import Any

from paravirt.abi import grant_table as abi
from paravirt.abi.grant_table import (
    GnttabGetStatusFrames,
    GnttabGetVersion,
    GnttabQuerySize,
    GnttabSetupTable,
    GnttabSetVersion,
    GrantEntryV1,
    GrantEntryV2,
)
from paravirt.abi.xen import HYPERCALLS

from .fakes import SELF, FakeDomain, FakeVcpu

GRANT_TABLE_OP = HYPERCALLS["grant_table_op"]
HYPERVISOR_RANGE = 0xFFFF_8000_0000_0000
MAX_FRAMES = 64


def op(vcpu: FakeVcpu, operation: int, *requests: ctypes.Structure) -> list[Any]:
    """Make a list of requests, all of one kind: what the guest finds in them afterwards."""
    where = vcpu.put(b"".join(bytes(request) for request in requests))
    assert vcpu.call(GRANT_TABLE_OP, operation, where, len(requests)) == 0
    size = ctypes.sizeof(requests[0])
    return [vcpu.read_struct(where + n * size, type(request)) for n, request in enumerate(requests)]


def setup(vcpu: FakeVcpu, frames: int, domid: int = SELF, frame_list: int | None = None) -> tuple[int, list[int]]:
    """(status, the frames that the guest was told)."""
    told = vcpu.put(bytes(8 * 70)) if frame_list is None else frame_list
    (answer,) = op(vcpu, abi.GNTTABOP_setup_table, GnttabSetupTable(domid, frames, 99, told))
    return answer.status, [] if frame_list is not None else [mfn for mfn in vcpu.numbers(told, 70) if mfn]


def query(vcpu: FakeVcpu, domid: int = SELF) -> tuple[int, int, int]:
    (answer,) = op(vcpu, abi.GNTTABOP_query_size, GnttabQuerySize(domid, status=99))
    return answer.status, answer.nr_frames, answer.max_nr_frames


def status_frames(vcpu: FakeVcpu, frames: int, domid: int = SELF) -> tuple[int, list[int]]:
    told = vcpu.put(bytes(8 * 16))
    (answer,) = op(vcpu, abi.GNTTABOP_get_status_frames, GnttabGetStatusFrames(frames, domid, 99, told))
    return answer.status, [mfn for mfn in vcpu.numbers(told, 16) if mfn]


def set_version(vcpu: FakeVcpu, version: int) -> tuple[int, int]:
    """(result, the version that the guest is told)."""
    where = vcpu.put(GnttabSetVersion(version))
    result = vcpu.call(GRANT_TABLE_OP, abi.GNTTABOP_set_version, where, 1)
    return result, vcpu.read_struct(where, GnttabSetVersion).version


def get_version(vcpu: FakeVcpu, domid: int = SELF) -> tuple[int, int]:
    where = vcpu.put(GnttabGetVersion(dom=domid))
    result = vcpu.call(GRANT_TABLE_OP, abi.GNTTABOP_get_version, where, 1)
    return result, vcpu.read_struct(where, GnttabGetVersion).version


def grant(domain: FakeDomain, ref: int, entry: GrantEntryV1 | GrantEntryV2) -> None:
    """Write an entry as the guest does, through a mapping of the table's frame."""
    _, shared = setup(domain.vcpus[0], 1)
    size = ctypes.sizeof(entry)
    domain.host.memory.write((shared[0] << 12) + ref * size, bytes(entry))
