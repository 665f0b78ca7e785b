"""The audit finds every kind of mistake that it is there for, and says which frame, and who refers to it."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import paravirt
from paravirt import Machine
from paravirt.abi.grant_table import GNTTAB_RESERVED_CONSOLE
from paravirt.errors import HypervisorBug
from paravirt.hypervisor.audit import audit, require_clean
from paravirt.hypervisor.audit_records import domain_record, frame_table, machine_record, vcpu_record
from paravirt.hypervisor.audit_report import AuditReport, describe_entry
from paravirt.hypervisor.hypercalls.grant_frames import grants_of

from ..patience import PATIENCE
from . import native
from .audited import audited

HELLO = Path(paravirt.__file__).parent / "data" / "hello"
DOMID_FREE = 0x7FF4


class Patient:
    """A machine with two built, paused domains whose records and memory can be spoiled for a moment."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.host = machine.host
        self.domains = [machine.create(kernel=HELLO, memory=8, name=name, paused=True) for name in ("one", "two")]
        self.views = [self.host.domains[domain.domid] for domain in self.domains]
        table = frame_table(self.host)
        self.records = (native.Frame * len(table)).from_address(table.ctypes.data)
        self.l4 = vcpu_record(self.views[0].vcpus[0])["kernel_table"]

    def audit(self) -> AuditReport:
        with self.host.lock:
            return audit(self.host)

    def entry(self, table: int, index: int) -> int:
        return int(struct.unpack("<Q", self.machine.memory.read(table * 4096 + index * 8, 8))[0])

    def below(self, table: int) -> tuple[int, int]:
        """The first guest entry of a table that is present: its index, and the frame that it names."""
        for index in range(512):
            value = self.entry(table, index)
            if value & 1 and not 256 <= index < 272:
                return index, (value >> 12) & 0xFFFFFFFF
        raise AssertionError("an empty table")

    @property
    def l1(self) -> int:
        table: int = self.l4
        for _ in range(3):
            table = self.below(table)[1]
        return table

    @contextmanager
    def store(self, table: int, index: int, value: int) -> Iterator[None]:
        """An entry behind the hypervisor's back."""
        old = self.entry(table, index)
        self.machine.memory.write(table * 4096 + index * 8, struct.pack("<Q", value))
        yield
        self.machine.memory.write(table * 4096 + index * 8, struct.pack("<Q", old))

    @contextmanager
    def record(self, mfn: int, **fields: int) -> Iterator[None]:
        """A frame's record with other contents."""
        frame: Any = self.records[mfn]
        old = {name: getattr(frame, name) for name in fields}
        for name, value in fields.items():
            setattr(frame, name, value)
        yield
        for name, value in old.items():
            setattr(frame, name, value)


@pytest.fixture(scope="module")
def patient() -> Iterator[Patient]:
    with Machine(memory=32) as machine:
        yield Patient(machine)


def test_what_the_builder_made_is_clean(patient: Patient) -> None:
    report = patient.audit()
    assert report.clean, str(report)
    # At least the allocation of every frame of both, and a mapping of most.
    assert report.references > 2 * 2048
    assert patient.machine.audit().clean
    assert "as they must be" in str(report)


@pytest.mark.parametrize(
    ("field", "change", "rule"),
    [("refs", 1, "references"), ("refs", -1, "references"), ("type_refs", 1, "type references")],
)
def test_a_count_that_is_wrong_by_one(patient: Patient, field: str, change: int, rule: str) -> None:
    mfn = patient.below(patient.l1)[1]
    with patient.record(mfn, **{field: getattr(patient.records[mfn], field) + change}):
        report = patient.audit()
    assert report.rules == {rule}
    (finding,) = report.findings
    assert finding.mfn == mfn
    text = str(report)
    assert f"frame {mfn:#x}: domain {patient.domains[0].domid}'s" in text
    assert f"held by L1 table {patient.l1:#x}, entry" in text
    assert patient.audit().clean


def test_a_page_table_that_is_mapped_writable(patient: Patient) -> None:
    """The paper's central rule: nobody may write to a page table but the hypervisor."""
    index, _ = patient.below(patient.l1)
    with patient.store(patient.l1, index, patient.l1 << 12 | 0x67):
        report = patient.audit()
    assert "types" in report.rules
    finding = next(found for found in report.findings if found.rule == "types")
    assert finding.mfn == patient.l1
    assert "used 1 times as writable, which it is not" in finding.text
    assert any(f"entry {index}: " in line and "RW" in line for line in finding.details)


def test_another_domains_frame(patient: Patient) -> None:
    theirs = int(patient.views[1].p2m[100])
    index, _ = patient.below(patient.l1)
    with patient.store(patient.l1, index, theirs << 12 | 0x25):
        report = patient.audit()
    assert {"owners", "references"} <= report.rules
    found = next(finding for finding in report.findings if finding.rule == "owners")
    one, two = (domain.domid for domain in patient.domains)
    assert found.mfn == theirs
    assert f"table of domain {one} maps a frame of domain {two}'s without a grant" in found.text


def test_a_reference_that_the_table_lost(patient: Patient) -> None:
    index, mfn = patient.below(patient.l1)
    with patient.store(patient.l1, index, 0):
        report = patient.audit()
    assert report.rules <= {"references", "type references"}
    assert {finding.mfn for finding in report.findings} == {mfn}


@pytest.mark.parametrize("bits", [0x8, 0x10, 0x80])
def test_bits_that_an_entry_must_not_have(patient: Patient, bits: int) -> None:
    index, _ = patient.below(patient.l1)
    with patient.store(patient.l1, index, patient.entry(patient.l1, index) | bits):
        report = patient.audit()
    assert report.rules == {"entries"}
    assert describe_entry(patient.entry(patient.l1, index) | bits) in str(report)


def test_a_superpage(patient: Patient) -> None:
    l3 = patient.below(patient.l4)[1]
    l2 = patient.below(l3)[1]
    index, _ = patient.below(l2)
    with patient.store(l2, index, patient.entry(l2, index) | 0x80):
        assert patient.audit().rules == {"entries"}


def test_an_entry_without_the_user_bit(patient: Patient) -> None:
    index, _ = patient.below(patient.l1)
    with patient.store(patient.l1, index, patient.entry(patient.l1, index) & ~4):
        assert patient.audit().rules == {"entries"}


def test_a_frame_that_does_not_exist(patient: Patient) -> None:
    index, _ = patient.below(patient.l1)
    with patient.store(patient.l1, index, 0xFFFFFF << 12 | 0x25):
        report = patient.audit()
    assert "entries" in report.rules
    assert "names a frame that does not exist" in str(report)


@pytest.mark.parametrize("slot", range(257, 272))
def test_slots_of_the_hypervisor(patient: Patient, slot: int) -> None:
    with patient.store(patient.l4, slot, 1 << 12 | 0x67):
        assert patient.audit().rules == {"reserved slots"}


def test_another_machine_to_phys_table(patient: Patient) -> None:
    for value in (patient.entry(patient.l4, 256) | 2, patient.entry(patient.l4, 256) + 0x1000):
        with patient.store(patient.l4, 256, value):
            assert patient.audit().rules == {"reserved slots"}
    with patient.store(patient.l4, 256, 0):  # hidden, as vm_assist can ask for
        assert patient.audit().clean


def test_a_machine_to_phys_table_that_guests_can_write(patient: Patient) -> None:
    with patient.host.lock:
        l3 = machine_record(patient.host)["m2p_l3_mfn"]
    l1 = patient.below(patient.below(l3)[1])[1]
    with patient.store(l1, 0, patient.entry(l1, 0) | 2):
        assert patient.audit().rules == {"machine-to-phys"}
    with patient.store(l1, 0, 0x9000 | 0x25):
        assert patient.audit().rules == {"machine-to-phys"}
    with patient.store(l3, 1, patient.entry(l3, 0)):
        assert patient.audit().rules == {"machine-to-phys"}


def test_a_free_frame_with_a_place(patient: Patient) -> None:
    free = max(mfn for mfn in range(patient.host.nr_frames) if patient.host.frame_info(mfn)[0] == DOMID_FREE)
    patient.host.set_m2p(free, 5)
    report = patient.audit()
    patient.host.set_m2p(free, 0xFFFFFFFFFFFFFFFF)
    assert report.rules == {"machine-to-phys"}


@pytest.mark.parametrize("fields", [{"refs": 1}, {"type_refs": 1}, {"type": 1}, {"flags": 4}])
def test_a_free_frame_that_is_not(patient: Patient, fields: dict[str, int]) -> None:
    free = max(mfn for mfn in range(patient.host.nr_frames) if patient.host.frame_info(mfn)[0] == DOMID_FREE)
    with patient.record(free, **fields):
        report = patient.audit()
    assert "free frames" in report.rules
    assert {finding.mfn for finding in report.findings} == {free}


def test_totals(patient: Patient) -> None:
    mfn = int(patient.views[0].p2m[100])
    with patient.record(mfn, owner=patient.domains[1].domid):
        report = patient.audit()
    assert sum(finding.rule == "totals" for finding in report.findings) == 2
    with patient.record(mfn, owner=DOMID_FREE, refs=0, type=0, type_refs=0, flags=0):
        assert {"totals", "references"} <= patient.audit().rules


def test_a_frame_of_a_domain_that_is_gone(patient: Patient) -> None:
    with patient.record(int(patient.views[0].p2m[100]), owner=77):
        report = patient.audit()
    assert "owner does not exist any more" in str(report)


def test_a_table_in_use_that_was_never_validated(patient: Patient) -> None:
    l3 = patient.below(patient.l4)[1]
    with patient.record(l3, flags=patient.records[l3].flags & ~4):
        report = patient.audit()
    assert "reach" in report.rules
    assert any(finding.rule == "reach" and finding.mfn == l3 for finding in report.findings)


def test_tables_of_the_wrong_level(patient: Patient) -> None:
    l3 = patient.below(patient.l4)[1]
    index, _ = patient.below(patient.l4)
    with patient.store(patient.l4, index, patient.below(l3)[1] << 12 | 0x67):
        report = patient.audit()
    assert {"types", "reach"} <= report.rules


def test_pins(patient: Patient) -> None:
    mfn = int(patient.views[0].p2m[100])
    with patient.record(mfn, flags=patient.records[mfn].flags | 2):
        assert patient.audit().rules >= {"pins"}
    with patient.record(patient.l4, flags=patient.records[patient.l4].flags & ~2):
        assert patient.audit().rules == {"references", "type references"}


def test_descriptors(patient: Patient) -> None:
    """A call gate that works, a segment of ring 0, a gate of another kind: each is found, and absent ones are not."""
    mfn = int(patient.views[0].p2m[2000])
    with patient.host.lock:
        assert patient.host.get_page_and_type(mfn, patient.domains[0].domid, 5) == 0
    good = (0, 0x00AFFB000000FFFF, 0x00006C0000000000, 0x0000EC0000000000 & ~(3 << 45), 0x0000800000000000)
    bad = (0x00AF9B000000FFFF, 0x0000EC0000000000, 0x0000890000000000, 0x0000820000000000)
    for descriptor in (*good, *bad):
        with patient.store(mfn, 3, descriptor):
            rules = patient.audit().rules
        # The use itself is one that no root accounts for.
        expected = {"references", "type references"} | ({"descriptors"} if descriptor in bad else set())
        assert rules == expected, f"{descriptor:016x}"
    with patient.host.lock:
        patient.host.put_page_and_type(mfn)
    assert patient.audit().clean


def test_domain_0s_mappings_are_counted(patient: Patient) -> None:
    mappings = patient.host.domains[0].state.maptrack.mappings
    assert sorted((one.domid, one.ref) for one in mappings.values()) == [(1, 0), (1, 1), (2, 0), (2, 1)]
    handle, taken = mappings.popitem()
    report = patient.audit()
    mappings[handle] = taken
    assert {"references", "type references"} <= report.rules


def test_a_mapping_of_domain_0_outlives_what_the_guest_does(patient: Patient) -> None:
    """A guest that gives its console page away does not have Domain 0 write into another's memory."""
    with patient.host.lock:
        console = grants_of(patient.views[1]).read(GNTTAB_RESERVED_CONSOLE).frame
        assert patient.views[1].release_page(console)
        assert patient.host.frame_info(console)[0] == patient.domains[1].domid
        # Nor can it become a page table.
        assert patient.host.get_page_and_type(console, patient.domains[1].domid, 1) < 0
    assert patient.audit().clean


def test_require_clean_raises_with_the_report(patient: Patient) -> None:
    mfn = patient.below(patient.l1)[1]
    with patient.host.lock:
        require_clean(patient.host)
        with patient.record(mfn, refs=77), pytest.raises(HypervisorBug, match=f"77 references(.|\n)*{mfn:#x}"):
            require_clean(patient.host, "in a test")


def test_many_mistakes_of_a_kind_are_counted_and_not_all_shown(patient: Patient) -> None:
    old = [patient.records[int(mfn)].refs for mfn in patient.views[0].p2m[100:200]]
    for mfn in patient.views[0].p2m[100:200]:
        patient.records[int(mfn)].refs += 1
    report = patient.audit()
    for mfn, refs in zip(patient.views[0].p2m[100:200], old, strict=True):
        patient.records[int(mfn)].refs = refs
    assert report.counts == {"references": 100}
    assert len(report.findings) < 30
    assert "80 more" in str(report)


def test_records_are_read_as_declared(patient: Patient) -> None:
    """The audit's view of the records against the declarations themselves."""
    table = frame_table(patient.host)
    assert table.dtype.itemsize == ctypes.sizeof(native.Frame)
    for name in table.dtype.names or ():
        assert int(table[patient.l4][name]) == getattr(patient.records[patient.l4], name)
    assert not table.flags.writeable
    record = domain_record(patient.views[0])
    assert record["tot_pages"] == 2048
    assert record["shared_info_mfn"] == patient.views[0].shared_info_mfn


def test_a_machine_that_is_audited_around_the_end_of_its_domains() -> None:
    expected = pytest.raises(HypervisorBug, match="before spoilt was taken down")
    with Machine(memory=32) as machine, expected, audited(machine):
        domain = machine.create(kernel=HELLO, memory=8, name="spoilt", paused=True)
        view = machine.host.domains[domain.domid]
        stray = int(view.p2m[100])
        with machine.host.lock:
            assert machine.host.get_page(stray, domain.domid)
        domain.unpause()
        domain.wait(PATIENCE)
        with machine.host.lock:
            machine.host.put_page(stray)
