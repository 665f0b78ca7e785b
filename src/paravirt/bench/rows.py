"""Every row of the suite: its name, its unit, what it means, and what paravirt should reach in it."""

from __future__ import annotations

from collections.abc import Mapping

from paravirt.bench.crowd import LINUX, SMALL
from paravirt.bench.hosting import CAP, HOGS, MANY, POLICIES
from paravirt.bench.hostkernel import MACHINES
from paravirt.bench.results import KVM, NATIVE, PARAVIRT, Row, Target
from paravirt.bench.trapcosts import TRAPS

XEN = ("xen-dom0", "QEMU 10")
"""Who sets the mark: real Xen's Domain 0 under this emulator; with an older one figures are not judged."""

_HALF = Target(0.5, XEN)
_AS_NATIVE = Target(1 / 0.95, (NATIVE,), KVM)
"""Guest code runs on the processor: at least 0.95 of the host's own speed."""
_TRAP_NS, _UPDATE_NS, _GRANT_NS, _PAGE_NS = 1000, 2000, 5000, 10_000
_HOLD_US = 1000
_OWN_KIB = 1024
_IDLE_PERCENT = 5
IDLE_MOST = 10
"""Domains that together use less than that while they are idle."""
_UNTRANSLATED = {KVM: "the processor executes the guests' code itself"}
LEAST_OWN = 100
"""Domains among which what all of them share, as the engine's cache of translations, does not count any more."""
_STORE_READ_US = 50
_LIMITS = {
    "mmu_update": _UPDATE_NS,
    "update_va_mapping": _UPDATE_NS,
    "multicall_8": _UPDATE_NS,
    "batch_4096": _UPDATE_NS,
    "page_table_write": _UPDATE_NS,
    "grant_map": _GRANT_NS,
    "grant_copy": _GRANT_NS,
    "validate_page": _PAGE_NS,
}
# The handler of `python` is Python, and so is not on the path that needs no interpreter.
_BUSY = ("stack_switch", "mmu_update", "page_table_write", "int3")

# name, what it is, where traps dominate
_GUEST = (
    ("null_call", "getppid", True),
    ("read_zero", "read a byte of /dev/zero", True),
    ("stat", "stat of a file", True),
    ("open_close", "open and close a file", True),
    ("signal_install", "sigaction", True),
    ("signal_handler", "a signal to oneself, its handler, and back", True),
    ("fork_exit", "fork, exit, wait", True),
    ("fork_exec", "fork, exec of a static program, wait", True),
    ("fork_sh", "the same through sh -c", True),
    ("switch_2p_0k", "a token through a pipe to the next of 2 processes", True),
    ("switch_16p_64k", "the same among 16 that read 64 KiB each", True),
    ("mmap_8m", "map 8 MiB of a file, read a byte of each 64 KiB, unmap", True),
    ("protection_fault", "a store into a read-only page, its signal handler, and back", True),
    ("page_fault", "the first store into an anonymous page", True),
    ("int_hash", "a million steps of an integer hash", False),
    ("branchy", "a million steps with branches that cannot be foreseen", False),
    ("fp_divide", "a million dependent divisions", False),
)
# name, what it is, the ratio to QEMU's virtio-blk
_DISK = (
    ("disk_write_64k", "64 KiB written after the other", 1),
    ("disk_write_4k", "4 KiB written after the other", 2),
    ("disk_random_write_4k", "4 KiB written somewhere", 2),
    ("disk_read_64k", "64 KiB read after the other", 1),
    ("disk_read_4k", "4 KiB read after the other", 2),
    ("disk_random_read_64k", "64 KiB read somewhere", 1),
    ("disk_random_read_4k", "4 KiB read somewhere", 2),
)
# What the program in the guest does, its unit, and what that is
_NETWORK = (
    ("send", "MB/s", "TCP"),
    ("receive", "MB/s", "TCP the other way"),
    ("echo", "us", "a byte there and back"),
)
_NETWORK_LOAD = (
    ("loaded", "us", "a byte there and back while another connection sends"),
    ("packets_out", "us", "a UDP packet of 64 bytes, in bursts"),
    ("packets_in", "us", "a UDP packet the other way"),
)
# What the program in the guest measures beside others that misbehave, and what that is
_ISOLATION = (
    ("null_call", "a system call"),
    ("fork_exit", "a process that ends at once"),
    ("disk_read_64k", "64 KiB read after the other"),
    ("disk_random_read_4k", "4 KiB read somewhere"),
)
_ISOLATION_PERCENT = 4
_BANDWIDTHS = (
    ("memcpy_4m", "copying 4 MiB", False),
    ("pipe_bandwidth", "a pipe between two processes", True),
)


def rows() -> list[Row]:
    """New rows without figures, in the table's order."""
    devices = [*_disk_rows(), *_network_rows(), *_store_rows()]
    many = [*_hosting_rows(), *_isolation_rows(), *_crowd_rows(), *_host_kernel_rows()]
    return [*_boot_rows(), *_trap_rows(), *_guest_rows(), *devices, *many]


def _boot_rows() -> list[Row]:
    return [
        Row("boot", "s", "boot", "Debian's generic kernel, 512 MiB, 1 vcpu, from the start of the process "
            "to the first line of /init", targets=(Target(0.8, XEN), Target(3, of=KVM))),
        Row("boot_handlers", "%", "boot", "handlers' part of that boot's time in the engine", targets=(Target(5),)),
        Row("boot_own", "%", "boot", "of that boot's time in the engine, what was ours and not KVM's",
            targets=(Target(5, of=KVM),),
            impossible={PARAVIRT: "the engine that executes guest code is part of this process"}),
        Row("boot_cloud", "s", "boot", "the same with Debian's cloud kernel"),
        Row("hello_process", "ms", "hello", "our smallest guest, from the start of the process to its first byte",
            targets=(Target(500),)),
        Row("hello_domain", "ms", "hello", "the same from a running Machine", targets=(Target(50),)),
    ]  # fmt: skip


def _trap_rows() -> list[Row]:
    made = []
    for trap, (meaning, trips) in TRAPS.items():
        each = f"{meaning}, each of {trips}" if trips > 1 else meaning
        made.append(Row(f"trap_{trap}", "ns", "traps", f"{each}: round trip"))
        if trap != "event_mask":
            limit = _LIMITS.get(trap, _TRAP_NS)
            made.append(
                Row(f"trap_{trap}_handler", "ns", "traps", f"{each}: in our handlers", targets=(Target(limit),))
            )
        if trap in _BUSY:
            made.append(Row(f"trap_{trap}_busy", "ns", "traps", f"{each}: round trip beside a busy Python thread"))
    made.append(
        Row("trap_longest", "us", "traps", "the longest that one of all these handlers held the machine",
            targets=(Target(_HOLD_US),))
    )  # fmt: skip
    return made


def _disk_rows() -> list[Row]:
    made = [
        Row(name, "MB/s", "disk", f"{meaning}, past the guest's page cache", lower_is_better=False,
            targets=(Target(ratio, ("q35",)),))
        for name, meaning, ratio in _DISK
    ]  # fmt: skip
    return [*made, Row("disk_domain0", "us/MB", "disk", "CPU time of Domain 0's thread in all of these")]


def _network_rows() -> list[Row]:
    made = [
        Row(f"net_{peer}_{mtu}_{name}", unit, "network", f"{meaning}, {way}, MTU {mtu}", lower_is_better=unit == "us")
        for mtu in (1500, 500)
        for peer, way in (("host", "from a guest to the host"), ("guest", "from a guest to another"))
        for name, unit, meaning in (*_NETWORK, *(_NETWORK_LOAD if mtu == 1500 else ()))
    ]
    beside = "beside a guest that floods the router, of that beside one that computes"
    made += [
        Row("net_flooded_send", "%", "network", f"throughput of two guests {beside}", lower_is_better=False),
        Row("net_flooded_echo", "%", "network", f"time of a byte there and back {beside}"),
    ]
    return [*made, Row("net_domain0", "us/MB", "network", "CPU time of Domain 0's thread in all of these")]


def _store_rows() -> list[Row]:
    reads = "a read of xenstore over its socket, by a client that"
    beside = {KVM: "no guest takes part, and so no engine"}
    return [
        Row("xs_read_pipelined", "us", "store", f"{reads} does not wait for replies",
            targets=(Target(_STORE_READ_US),), impossible=beside),
        Row("xs_read_single", "us", "store", f"{reads} waits for each", impossible=beside),
    ]  # fmt: skip


def _guest_rows() -> list[Row]:
    made = []
    targets: tuple[Target, ...]
    for name, meaning, trapping in _GUEST:
        targets = (_HALF,) if trapping else (_AS_NATIVE,)
        if name == "null_call":
            targets = (Target(4), *targets)
        made.append(Row(name, "us", "guest", meaning, targets=targets))
    for name, meaning, trapping in _BANDWIDTHS:
        targets = (_HALF,) if trapping else (_AS_NATIVE,)
        made.append(Row(name, "MB/s", "guest", meaning, lower_is_better=False, targets=targets))
    return made


def _hosting_rows() -> list[Row]:
    def row(name: str, unit: str, meaning: str, target: float | None = None, *, lower: bool = True) -> Row:
        targets = () if target is None else (Target(target),)
        return Row(f"hosting_{name}", unit, "hosting", meaning, lower, targets)

    made = [row(f"share_{one}", "%", f"weights 1:2:3:4 under {one}: the worst share is off by", 4) for one in POLICIES]
    made.append(row("cap", "%", f"a cap of {CAP} % under credit is off by", 2))
    for one in POLICIES:
        made.append(row(f"wake_{one}", "us", f"an alarm beside {HOGS} domains that compute, under {one}, is late by"))
        made.append(row(f"wake_{one}_p99", "us", "the same: one in a hundred is later than"))
    made.append(row("switch", "us", "a yield that goes to another domain", 10))
    made.append(row("yield", "us", "a yield that comes back at once"))
    for count in MANY:
        meaning = f"work of {count} domains for each second of the host's CPU, of what one does"
        made.append(row(f"work_{count}", "%", meaning, lower=False))
    made.append(
        Row("hosting_two", "x", "hosting", "work of two domains on two physical CPUs, of what one does", False,
            targets=(Target(1 / 0.9, (NATIVE,)), Target(1 / 0.9, (NATIVE,), KVM)))
    )  # fmt: skip
    made.append(
        Row("hosting_two_vcpus", "x", "hosting", "work of a domain's two vcpus on two physical CPUs, of what one does",
            False, targets=(Target(1 / 0.9, (NATIVE,), KVM),),
            impossible={PARAVIRT: "there the vcpus of a domain take turns"})
    )  # fmt: skip
    return made


def _isolation_rows() -> list[Row]:
    made = []
    for name, meaning in _ISOLATION:
        lost = f"{meaning}: lost to a disk hog and endless forks in other domains"
        made.append(Row(f"isolation_{name}", "%", "isolation", lost, targets=(Target(_ISOLATION_PERCENT),)))
        made.append(Row(f"isolation_{name}_spread", "%", "isolation", "the same, undisturbed: twice, apart by"))
    return made


def _host_kernel_rows() -> list[Row]:
    none = {PARAVIRT: "it has no virtual machines of the host's"}
    return [
        Row(f"host_kernel_{count}", "KiB", "host_kernel", f"memory of the host's kernel for each of {count} domains",
            impossible=none)
        for count in MACHINES
    ]  # fmt: skip


def _crowd_rows() -> list[Row]:
    made = []
    for kind, meaning, answer, marks in (
        ("small", "small domains", "an alarm beside so many is late by", SMALL),
        ("linux", "Linux guests", "a shell among so many answers after", LINUX),
    ):
        for count in marks:
            name = f"crowd_{kind}_{count}"
            made += [
                Row(f"{name}_start", "1/s", "crowd", f"the last of {count} {meaning}: starts in a second",
                    lower_is_better=False),
                Row(f"{name}_own", "KiB", "crowd", "memory of the process's own, for each",
                    targets=(Target(_OWN_KIB),) if kind == "small" and count >= LEAST_OWN else ()),
                Row(f"{name}_code", "MiB", "crowd", "filled with translated code", impossible=_UNTRANSLATED),
                Row(f"{name}_answer", "us", "crowd", answer),
                Row(f"{name}_idle", "%", "crowd", "of a processor, while all are idle",
                    targets=(Target(_IDLE_PERCENT),) if count <= IDLE_MOST else ()),
            ]  # fmt: skip
            if kind == "linux":
                made += _turns_rows(name, count)
    return made


def _turns_rows(name: str, count: int) -> list[Row]:
    """What Linux guests pay for taking turns on one engine."""

    def row(what: str, unit: str, meaning: str, impossible: Mapping[str, str] | None = None) -> Row:
        return Row(f"{name}_{what}", unit, "crowd", meaning, impossible=impossible or {})

    made = [
        row("fork_exec", "us", f"{count} Linux guests start processes by turns: the host's processor time for each"),
        row("translating", "%", "of that, for translating code", _UNTRANSLATED),
        row("forgotten", "", "how often all translated code was forgotten meanwhile", _UNTRANSLATED),
        row("flushes", "", "TLB flushes for each change of a page-table entry", _UNTRANSLATED),
    ]
    if count > 1:
        made.append(row("switch", "us", "a switch among them, with what it makes them find again"))
    return made
