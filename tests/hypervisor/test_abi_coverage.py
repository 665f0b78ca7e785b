"""docs/abi.md holds every number of the public headers, and what it says of each is what the handlers do."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from paravirt.abi import errno, grant_table
from paravirt.abi.xen import HYPERCALLS
from paravirt.hypervisor.hypercalls.registry import handlers

from .hypercalls.fakes import BAD, FakeDomain, FakeHost, FakeVcpu

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "abi.md"
NATIVE = ROOT / "src" / "paravirt" / "hypervisor" / "hypercalls" / "native.py"

# Which constants are sub-operations: by heading of the page, the header's module and what their names look like.
FAMILIES = {
    "mmu_update": ("xen", r"MMU_\w+"),
    "update_va_mapping": ("xen", r"UVMF_(?!FLUSHTYPE_MASK)\w+"),
    "mmuext_op": ("xen", r"MMUEXT_\w+"),
    "memory_op": ("memory", r"XENMEM_(?!access_(?!op)|resource_)[a-z]\w+"),
    "grant_table_op": ("grant_table", r"GNTTABOP_\w+"),
    "event_channel_op": ("event_channel", r"EVTCHNOP_\w+"),
    "sched_op": ("sched", r"SCHEDOP_\w+"),
    "vcpu_op": ("vcpu", r"VCPUOP_\w+"),
    "set_segment_base": ("arch_x86", r"SEGBASE_\w+"),
    "vm_assist": ("xen", r"VMASST_\w+"),
    "callback_op": ("callback", r"CALLBACK(OP|TYPE)_\w+"),
    "nmi_op": ("nmi", r"XENNMI_\w+"),
    "xen_version": ("version", r"XENVER_\w+"),
    "console_io": ("xen", r"CONSOLEIO_\w+"),
    "physdev_op": ("physdev", r"PHYSDEVOP_(?!DBGP_)\w+"),
    "hvm_op": ("hvm_op", r"HVMOP_[a-z]\w+"),
    "dm_op": ("dm_op", r"XEN_DMOP_[a-z]\w+"),
    "platform_op": ("platform", r"XENPF_[a-z]\w+"),
    "sysctl": ("sysctl", r"XEN_SYSCTL_(?!pm_op_|cpu_featureset_|cpu_policy_)[a-z]\w+"),
    "domctl": ("domctl", r"XEN_DOMCTL_(?!vmtrace_(?!op))[a-z]\w+"),
    "kexec_op": ("kexec", r"KEXEC_CMD_\w+"),
    "hypfs_op": ("hypfs", r"XEN_HYPFS_OP_\w+"),
    "arch_0": ("xen_mca", r"XEN_MC_[a-z]\w+"),
    "xenoprof_op": ("xenoprof", r"XENOPROF_(?!last_op)[a-z]\w+"),
    "xenpmu_op": ("pmu", r"XENPMU_[a-z]\w+"),
    "argo_op": ("argo", r"XEN_ARGO_OP_\w+"),
    "xsm_op": ("flask_op", r"FLASK_\w+"),
    "tmem_op": ("tmem", r"TMEM_(NEW|DESTROY|PUT|GET|FLUSH|AUTH|RESTORE)\w*"),
}
HEADING = "Hypercalls"  # the table of the hypercalls themselves
ANSWER = re.compile(r"implemented|nothing to do|refused `(-E\w+|GNTST_\w+)`")


@dataclass(frozen=True)
class Entry:
    """One name of the page."""

    heading: str
    name: str
    number: int
    answer: str

    @property
    def error(self) -> str | None:
        match = ANSWER.fullmatch(self.answer)
        return match.group(1) if match else None


def read_page() -> list[Entry]:
    """Every name in the first column of a table."""
    found = []
    heading = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        if line.startswith("| `"):
            names, answer, _ = (cell.strip() for cell in line.strip("|").split("|", 2))
            for name, number in re.findall(r"`(\w+)` (\d+)", names):
                found.append(Entry(heading, name, int(number), answer))
    return found


ENTRIES = read_page()


def constants(module: str, pattern: str) -> dict[str, int]:
    contents = vars(importlib.import_module(f"paravirt.abi.{module}"))
    return {key: value for key, value in contents.items() if type(value) is int and re.fullmatch(pattern, key)}


def test_the_page_has_every_hypercall() -> None:
    documented = {entry.name: entry.number for entry in ENTRIES if entry.heading == HEADING}
    assert documented == {f"__HYPERVISOR_{name}": number for name, number in HYPERCALLS.items()}


@pytest.mark.parametrize("heading", FAMILIES)
def test_the_page_has_every_operation(heading: str) -> None:
    in_header = constants(*FAMILIES[heading])
    assert in_header
    documented = {entry.name: entry.number for entry in ENTRIES if entry.heading == heading}
    assert documented == in_header


def test_the_page_says_each_thing_once() -> None:
    names = [(entry.heading, entry.name) for entry in ENTRIES]
    assert len(names) == len(set(names))
    assert {entry.heading for entry in ENTRIES} == {HEADING, *FAMILIES}


def test_answers_are_of_few_kinds() -> None:
    odd = [entry for entry in ENTRIES if not ANSWER.fullmatch(entry.answer)]
    assert not odd
    for entry in ENTRIES:
        if entry.error is not None:
            assert hasattr(errno, entry.error[1:]) or hasattr(grant_table, entry.error)


def native() -> set[int]:
    """The numbers for which the compiled table has a handler."""
    registered = re.findall(r"^    host\.hypercalls\[HYPERVISOR_(\w+)\] = ", NATIVE.read_text(encoding="utf-8"), re.M)
    assert registered
    return {HYPERCALLS[name] for name in registered}


def test_every_hypercall_has_one_handler() -> None:
    assert native() | set(handlers()) == set(HYPERCALLS.values())
    assert not native() & set(handlers())


@pytest.fixture
def vcpu() -> FakeVcpu:
    """An unprivileged caller whose number is 0, so that a request of zeros names itself."""
    return FakeDomain(FakeHost(), 0).vcpus[0]


def in_python(heading: str) -> bool:
    return HYPERCALLS[heading] in handlers()


OPERATION_FIRST = [
    "memory_op",
    "grant_table_op",
    "xen_version",
    "physdev_op",
    "hvm_op",
    "xenoprof_op",
    "xenpmu_op",
    "kexec_op",
    "hypfs_op",
    "argo_op",
    "console_io",
]
"""Families in Python whose first argument is the operation and whose second is a pointer."""
OF_THE_FORMER = re.compile(r"XENMEM_\w+_op_\w+|HVMOP_altp2m_\w+")  # operations of an operation


@pytest.mark.parametrize(
    "entry",
    [entry for entry in ENTRIES if entry.heading in OPERATION_FIRST and not OF_THE_FORMER.fullmatch(entry.name)],
    ids=lambda entry: entry.name,
)
def test_what_the_page_says_is_what_happens(entry: Entry, vcpu: FakeVcpu) -> None:
    assert in_python(entry.heading)
    number = HYPERCALLS[entry.heading]
    answers = {vcpu.call(number, entry.number, pointer, 1) for pointer in (0, BAD, vcpu.map())}
    if entry.error is None:
        assert not answers & {-errno.ENOSYS, -errno.EPERM, -errno.EOPNOTSUPP} or entry.name == "XENMEM_memory_map"
    elif entry.error.startswith("GNTST"):
        assert answers <= {0, -errno.EFAULT}  # the refusal is in each request's status: see test_grant_table
    else:
        refusal = -getattr(errno, entry.error[1:])
        # A bad pointer or a bad domain may be noticed before what the page names.
        assert answers <= {refusal, -errno.EFAULT, -errno.EINVAL, -errno.EPERM}
        if refusal == -errno.ENOSYS:
            assert answers == {refusal}


@pytest.mark.parametrize("name", HYPERCALLS)
def test_a_hypercall_refused_as_a_whole_is_refused(name: str, vcpu: FakeVcpu) -> None:
    (entry,) = [entry for entry in ENTRIES if entry.name == f"__HYPERVISOR_{name}"]
    if entry.number not in handlers():
        assert entry.error is None or name == "update_va_mapping_otherdomain"
        return
    operations = range(24) if name in OPERATION_FIRST else (0, BAD, vcpu.map())
    answers = {vcpu.call(entry.number, operation, BAD, 0) for operation in operations}
    if entry.error is not None:
        assert max(answers) < 0
        if entry.error == "-ENOSYS":
            assert answers == {-errno.ENOSYS}
    else:
        assert answers != {-errno.ENOSYS}
