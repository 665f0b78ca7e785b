"""docs/abi.md against the handlers, compiled and Python: each sub-operation, asked properly, answers just what it says.

That the page has every name of the headers is test_abi_coverage's matter.
"""

from __future__ import annotations

import ctypes
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from paravirt.abi import errno, grant_table
from paravirt.abi.domctl import XEN_DOMCTL_INTERFACE_VERSION
from paravirt.abi.event_channel import EVTCHNOP_init_control
from paravirt.abi.hvm_op import HVMOP_altp2m
from paravirt.abi.memory import XENMEM_access_op, XENMEM_paging_op, XENMEM_sharing_op
from paravirt.abi.platform import XENPF_INTERFACE_VERSION
from paravirt.abi.sysctl import XEN_SYSCTL_INTERFACE_VERSION
from paravirt.abi.xen import DOMID_SELF, HYPERCALLS
from paravirt.hypervisor.hypercalls.registry import handlers
from paravirt.hypervisor.hypercalls.state import MemoryRange

from . import native
from .hypercalls.fakes import FakeDomain, FakeHost, FakeVcpu

PAGE = Path(__file__).resolve().parents[2] / "docs" / "abi.md"
NAMED = re.compile(r"`(\w+)` (\d+)")
REFUSED = re.compile(r"refused `(-E\w+|GNTST_\w+)`")
CALLER, OTHER = 3, 7  # domains


@dataclass(frozen=True)
class Documented:
    """One name on the page, and what it answers."""

    family: str
    name: str
    number: int
    answer: str

    @property
    def refusal(self) -> int | None:
        """The error or status, negative; None: it is not refused."""
        match = REFUSED.fullmatch(self.answer)
        if match is None:
            return None
        if match[1].startswith("-"):
            return -int(getattr(errno, match[1][1:]))
        return int(getattr(grant_table, match[1]))


def documented() -> Iterator[Documented]:
    """Every name in the first column of a table, in the page's order."""
    family = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            family = line.lstrip("# ")
        elif line.startswith("| `"):
            names, answer, _why = (cell.strip() for cell in line.strip("|").split(" | ", 2))
            for name, number in NAMED.findall(names):
                yield Documented(family, name, int(number), answer)


HYPERCALL_ENTRIES = [entry for entry in documented() if entry.family == "Hypercalls"]
SUB_OPERATIONS = [entry for entry in documented() if entry.family != "Hypercalls"]


class Guest:
    """Makes hypercalls of the compiled handlers and of the Python ones, each on a guest of its own kind."""

    def __init__(self) -> None:
        host = FakeHost()
        FakeDomain(host, 0, pages=1, is_privileged=True)
        FakeDomain(host, OTHER, pages=1)
        self.vcpu: FakeVcpu = FakeDomain(host, CALLER).vcpus[0]
        self.vcpu.domain.state.memory_map = [MemoryRange(0, 4096, 1)]
        self.machine = native.Machine(frames=160)
        self.compiled = native.Guest(self.machine, CALLER, 2)
        native.Guest(self.machine, OTHER, 1)
        native.functions("hypercalls.native").register_native(self.machine.at)
        native.functions("scheduling").pick_next(native.address(self.machine.cpus[0]))

    def is_compiled(self, number: int) -> bool:
        return bool(self.machine.host.hypercalls[number])

    def put(self, number: int, data: bytes = b"") -> int:
        """Put an argument, and zeros behind it, where the hypercall's handler finds it: the address."""
        if self.is_compiled(number):
            return self.compiled.arguments(data)
        return self.vcpu.put(data.ljust(4096, b"\0"))

    def call(self, number: int, *args: int) -> int:
        """The answer."""
        if not self.is_compiled(number):
            return self.vcpu.call(number, *args)
        prototype = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_void_p] * 3)
        handler = prototype(self.machine.host.hypercalls[number])
        return native.call(handler, self.machine, self.compiled.vcpu[0], *args)


@pytest.fixture
def guest() -> Iterator[Guest]:
    made = Guest()
    yield made
    made.machine.close()


# Arguments that begin otherwise than with zeros: by the sub-operation's name.
ARGUMENTS = {
    "XENMEM_get_vnumainfo": struct.pack("<H", DOMID_SELF),
    "HVMOP_get_mem_type": struct.pack("<H", DOMID_SELF),
    "SCHEDOP_remote_shutdown": struct.pack("<H", OTHER),
    "VCPUOP_set_periodic_timer": struct.pack("<Q", 10_000_000),
}


def by_command(guest: Guest, entry: Documented) -> int:
    """The common way: the operation, a pointer to its argument, and one as the count if there is any."""
    number = HYPERCALLS[entry.family]
    return guest.call(number, entry.number, guest.put(number, ARGUMENTS.get(entry.name, b"")), 1)


def by_batch(guest: Guest, entry: Documented) -> int:
    """A list of one request that begins with the command; then the count, no place for the result, and self."""
    number = HYPERCALLS[entry.family]
    return guest.call(number, guest.put(number, struct.pack("<Q", entry.number)), 1, 0, DOMID_SELF)


def by_structure(version: int = 0) -> Callable[[Guest, Documented], int]:
    """A structure of command and version; behind them domctl has its domain."""

    def call(guest: Guest, entry: Documented) -> int:
        number = HYPERCALLS[entry.family]
        return guest.call(number, guest.put(number, struct.pack("<IIQ", entry.number, version, OTHER)))

    return call


def of_memory(guest: Guest, entry: Documented) -> int:
    number = HYPERCALLS["memory_op"]
    parents = {"paging_op": XENMEM_paging_op, "access_op": XENMEM_access_op, "sharing_op": XENMEM_sharing_op}
    for name, command in parents.items():
        if entry.name.startswith(f"XENMEM_{name}"):
            operation = entry.number if entry.name != f"XENMEM_{name}" else 0
            return guest.call(number, command, guest.put(number, struct.pack("<BBH", operation, 0, OTHER)))
    return by_command(guest, entry)


def of_grants(guest: Guest, entry: Documented) -> int:
    """The status of one request about domain 7, where the operation's requests have one."""
    requests: dict[str, ctypes.Structure] = {
        "GNTTABOP_map_grant_ref": grant_table.GnttabMapGrantRef(flags=grant_table.GNTMAP_host_map, dom=OTHER),
        "GNTTABOP_unmap_grant_ref": grant_table.GnttabUnmapGrantRef(),
        "GNTTABOP_unmap_and_replace": grant_table.GnttabUnmapAndReplace(),
        "GNTTABOP_transfer": grant_table.GnttabTransfer(mfn=guest.vcpu.domain.mfns[0], domid=OTHER),
    }
    if entry.name not in requests:
        return by_command(guest, entry)
    request = requests[entry.name]
    where = guest.vcpu.put(request)
    assert guest.call(HYPERCALLS["grant_table_op"], entry.number, where, 1) == 0
    return int(getattr(guest.vcpu.read_struct(where, type(request)), "status"))  # noqa: B009 - of any layout


def of_events(guest: Guest, entry: Documented) -> int:
    number = HYPERCALLS["event_channel_op"]
    if entry.name in ("EVTCHNOP_expand_array", "EVTCHNOP_set_priority"):  # the FIFO ABI has to be in use
        control = guest.put(number, struct.pack("<QIIQ", guest.compiled.page() >> 12, 0, 0, 0))
        assert guest.call(number, EVTCHNOP_init_control, control) == 0
    return by_command(guest, entry)


def of_vcpus(guest: Guest, entry: Documented) -> int:
    number = HYPERCALLS["vcpu_op"]
    takes_none = entry.name == "VCPUOP_send_nmi"
    return guest.call(number, entry.number, 0, 0 if takes_none else guest.put(number, ARGUMENTS.get(entry.name, b"")))


def of_segments(guest: Guest, entry: Documented) -> int:
    return guest.call(HYPERCALLS["set_segment_base"], entry.number, 0)


def of_mappings(guest: Guest, entry: Documented) -> int:
    return guest.call(HYPERCALLS["update_va_mapping"], guest.compiled.page(), 0, entry.number)


def of_translated_guests(guest: Guest, entry: Documented) -> int:
    number = HYPERCALLS["hvm_op"]
    if entry.name.startswith("HVMOP_altp2m_"):
        return guest.call(number, HVMOP_altp2m, guest.put(number, struct.pack("<II", 1, entry.number)))
    if entry.name == "HVMOP_guest_request_vm_event":
        return guest.call(number, entry.number, 0)
    return by_command(guest, entry)


def of_device_models(guest: Guest, entry: Documented) -> int:
    number = HYPERCALLS["dm_op"]
    operation = guest.put(number, struct.pack("<I", entry.number))
    return guest.call(number, OTHER, 1, guest.put(number, struct.pack("<QQ", operation, 64)))


def of_assists(guest: Guest, entry: Documented) -> int:
    number = HYPERCALLS["vm_assist"]
    return guest.call(number, entry.number) if "_CMD_" in entry.name else guest.call(number, 0, entry.number)


def of_callbacks(guest: Guest, entry: Documented) -> int:
    number = HYPERCALLS["callback_op"]
    if entry.name.startswith("CALLBACKOP_"):
        return guest.call(number, entry.number, guest.put(number, struct.pack("<H", 4)))  # the NMI's
    return guest.call(number, 0, guest.put(number, struct.pack("<HHIQ", entry.number, 0, 0, 0x1000)))


CALLS: dict[str, Callable[[Guest, Documented], int]] = {
    "memory_op": of_memory,
    "grant_table_op": of_grants,
    "event_channel_op": of_events,
    "vcpu_op": of_vcpus,
    "set_segment_base": of_segments,
    "update_va_mapping": of_mappings,
    "hvm_op": of_translated_guests,
    "dm_op": of_device_models,
    "vm_assist": of_assists,
    "callback_op": of_callbacks,
    "mmu_update": by_batch,
    "mmuext_op": by_batch,
    "platform_op": by_structure(XENPF_INTERFACE_VERSION),
    "sysctl": by_structure(XEN_SYSCTL_INTERFACE_VERSION),
    "domctl": by_structure(XEN_DOMCTL_INTERFACE_VERSION),
    "arch_0": by_structure(),
    "tmem_op": by_structure(),
    "xsm_op": by_structure(),
}


def answer(guest: Guest, entry: Documented) -> int:
    return CALLS.get(entry.family, by_command)(guest, entry)


@pytest.mark.parametrize(
    "entry", [entry for entry in SUB_OPERATIONS if entry.refusal is not None], ids=lambda entry: entry.name
)
def test_what_is_refused_answers_the_documented_error(guest: Guest, entry: Documented) -> None:
    assert answer(guest, entry) == entry.refusal


@pytest.mark.parametrize(
    "entry", [entry for entry in SUB_OPERATIONS if entry.refusal is None], ids=lambda entry: entry.name
)
def test_what_is_implemented_is_there(guest: Guest, entry: Documented) -> None:
    assert answer(guest, entry) not in (-errno.ENOSYS, -errno.EOPNOTSUPP)


@pytest.mark.parametrize("entry", HYPERCALL_ENTRIES, ids=lambda entry: entry.name)
def test_a_hypercall_has_the_answer_of_its_sub_operations(entry: Documented) -> None:
    """It is implemented if any of them is; it is refused as one of them is."""
    name = entry.name.removeprefix("__HYPERVISOR_")
    below = {child.refusal for child in SUB_OPERATIONS if child.family == name}
    if below:
        assert (entry.refusal is None) == (None in below)
        assert entry.refusal in below


def test_compiled_and_python_handlers_do_not_overlap_and_are_all_documented(guest: Guest) -> None:
    compiled = {number for number in range(64) if guest.is_compiled(number)}
    assert compiled
    assert not compiled & set(handlers())
    missing = {entry.number for entry in HYPERCALL_ENTRIES if entry.refusal != -errno.ENOSYS}
    assert missing <= compiled | set(handlers()) <= {entry.number for entry in HYPERCALL_ENTRIES}
