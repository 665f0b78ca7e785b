"""Checks of page tables and descriptor tables that stand behind others: each is asked for alone, on tables that no
guest could have made."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from paravirt.abi.errno import EINVAL, EPERM, ESRCH
from paravirt.abi.xen import DOMID_SELF

from . import native

mmu = native.functions("mmu")
mmu_ops = native.functions("hypercalls.mmu_ops")
descriptors = native.functions("hypercalls.descriptor_tables")
grant_entries = native.functions("grant_entries")

DOMID, OTHER = 3, 4
ALLOCATED, VALIDATED, XEN = 1, 4, 8
L1, SEGDESC, WORK_LIMIT = 1, 5, 65536
PRESENT, RW, USER = 1, 2, 4
WRITABLE_PAGETABLES = 1 << 2
NOWHERE = 1 << 30  # no table above it
ALIAS = 1 << 60  # makes an address one that no processor takes
HIDDEN = 0xFFFF_8000_0000_0000  # the hypervisor's range
STORE = bytes.fromhex("488903")  # mov %rax, (%rbx)
VALUE = 0x5000  # of an entry that is not present
NOT_A_TABLE = [("type", 2), ("type_refs", 0), ("flags", ALLOCATED), ("owner", OTHER)]  # in a field of an L1 table's


class Tables:
    """A domain with an L1 table that it maps read-only at its machine address; the machine's last frame in use."""

    def __init__(self) -> None:
        self.machine = native.Machine()
        self.guest = native.Guest(self.machine, DOMID)
        self.vcpu = self.guest.vcpu[0]
        self.rec: Any = self.vcpu.rec
        self.rec.pcpu = self.machine.pcpus[0]
        self.rec.in_multicall = 1  # arguments are then given back in place
        self.guest.rec.arch_vm_assist = WRITABLE_PAGETABLES
        self.rec.cpu.seg[1].flags = 0xA0FB00
        self.list = self.guest.page()
        self.code = self.guest.page()
        self.mfn = self.guest.page() >> 12
        self.frame = self.machine.frames[self.mfn]
        self.frame.type, self.frame.type_refs, self.frame.flags = L1, 1, ALLOCATED | VALIDATED
        table = self.guest.table
        for _ in range(3):
            table = self.machine.words(table)[0] >> 12
        self.lowest = table
        self.mapping = self.machine.words(table)
        self.mapping[self.mfn] = self.mfn << 12 | PRESENT | USER

    def validate_lowest(self) -> Any:
        """The table that maps all memory is an L1 as the hypervisor knows it: its record."""
        frame = self.machine.frames[self.lowest]
        frame.type, frame.type_refs, frame.flags = L1, 1, ALLOCATED | VALIDATED
        return frame

    def grant_entry(self, address: int, by_entry: int) -> int:
        """The index in its table of the entry that a grant would be mapped by; -1: there is none."""
        mfn = ctypes.c_uint64()
        at = grant_entries.find_grant_entry(self.vcpu.at, address, by_entry, ctypes.addressof(mfn))
        return (at - self.machine.host.memory - (mfn.value << 12)) // 8 if at else -1

    def show_low_memory_in_the_hypervisors_range(self) -> None:
        words = self.machine.words(self.guest.table)
        words[256] = words[0]

    def store(self, address: int | None = None, code: bytes = STORE) -> bool:
        """Whether a store that faulted was carried out."""
        self.machine.write(self.code, code.ljust(16, b"\x90"))
        self.rec.cpu.rip = self.code
        self.rec.cpu.gpr[0] = VALUE
        return self.fault(self.mfn << 12 if address is None else address)

    def fault(self, address: int) -> bool:
        self.rec.cpu.gpr[3] = address
        return bool(mmu.write_fault(self.machine.at, self.vcpu.at, address))

    def call(self, name: str, *args: int) -> int:
        return native.call(getattr(mmu_ops, name), self.machine, self.vcpu, *args)


@pytest.fixture
def tables() -> Iterator[Tables]:
    made = Tables()
    yield made
    made.machine.close()


# --- writes that fault --------------------------------------------------------------------------------------------


def test_a_store_to_a_table_is_carried_out(tables: Tables) -> None:
    assert tables.store()
    assert tables.machine.words(tables.mfn)[0] == VALUE
    assert tables.rec.cpu.rip == tables.code + len(STORE)


@pytest.mark.parametrize("flags", [0, PRESENT | RW | USER])
def test_a_page_that_is_not_mapped_read_only_is_not_written(tables: Tables, flags: int) -> None:
    tables.mapping[tables.mfn] = tables.mfn << 12 | flags
    assert not tables.store()
    assert tables.machine.words(tables.mfn)[0] == 0


def test_a_page_that_no_table_maps_is_not_written(tables: Tables) -> None:
    assert not tables.store(NOWHERE)


def test_a_frame_behind_the_memory_is_not_written(tables: Tables) -> None:
    tables.machine.host.nr_frames = tables.mfn
    assert not tables.store()


@pytest.mark.parametrize(
    ("field", "value"), NOT_A_TABLE
)
def test_only_a_domains_own_validated_table_is_written(tables: Tables, field: str, value: int) -> None:
    setattr(tables.frame, field, value)
    assert not tables.store()
    assert tables.machine.words(tables.mfn)[0] == 0


def test_a_store_that_is_refused_is_the_guests_fault(tables: Tables) -> None:
    tables.machine.write(tables.code, STORE)
    tables.rec.cpu.rip = tables.code
    tables.rec.cpu.gpr[0] = tables.mfn << 12 | PRESENT | RW  # a writable mapping of a page table
    assert not tables.fault(tables.mfn << 12)
    assert tables.rec.cpu.rip == tables.code
    assert tables.machine.words(tables.mfn)[0] == 0


def test_an_instruction_that_is_cut_short_is_not_carried_out(tables: Tables) -> None:
    tables.machine.words(tables.mfn)[0] = VALUE
    store = bytes.fromhex("48c703") + bytes(4)  # movq $0, (%rbx)
    end = tables.code + 4096
    tables.machine.write(end - 5, store[:5])
    tables.mapping[tables.mfn] = 0  # what follows the code
    tables.mapping[tables.lowest] = tables.mfn << 12 | PRESENT | USER  # the table, at another address
    tables.rec.cpu.rip = end - 5
    assert not tables.fault(tables.lowest << 12)
    assert tables.machine.words(tables.mfn)[0] == VALUE
    tables.machine.write(tables.code, store)
    tables.rec.cpu.rip = tables.code
    assert tables.fault(tables.lowest << 12)
    assert tables.machine.words(tables.mfn)[0] == 0


# --- hypercalls ---------------------------------------------------------------------------------------------------


def test_an_entry_is_changed_by_its_address(tables: Tables) -> None:
    tables.frame.type_refs = 0
    tables.validate_lowest()
    assert tables.call("do_update_va_mapping", 63 << 12, 0) == 0
    assert tables.mapping[63] == 0


@pytest.mark.parametrize("address", [HIDDEN, NOWHERE])
def test_an_address_that_no_guest_table_maps_has_no_entry(tables: Tables, address: int) -> None:
    tables.show_low_memory_in_the_hypervisors_range()
    for mfn in (0, tables.lowest):  # frame 0: what a table that is not there might be taken for
        frame = tables.machine.frames[mfn]
        frame.owner, frame.refs, frame.type, frame.type_refs, frame.flags = DOMID, 1, L1, 1, ALLOCATED | VALIDATED
    before = list(tables.mapping)
    assert tables.call("do_update_va_mapping", address, VALUE) == -EINVAL
    assert list(tables.mapping) == before
    assert tables.machine.words(0)[0] == 0


@pytest.mark.parametrize(("field", "value"), NOT_A_TABLE)
def test_only_an_entry_of_a_domains_own_table_is_changed(tables: Tables, field: str, value: int) -> None:
    setattr(tables.validate_lowest(), field, value)
    before = list(tables.mapping)
    assert tables.call("do_update_va_mapping", 63 << 12, 0) == -EINVAL
    assert list(tables.mapping) == before


def test_anothers_tables_and_frames_are_not_the_callers(tables: Tables) -> None:
    native.Guest(tables.machine, OTHER)
    tables.machine.write(tables.list, bytes(24))
    assert tables.call("do_mmuext_op", tables.list, 1, 0, OTHER) == -EPERM
    assert tables.call("do_mmu_update", tables.list, 1, 0, OTHER) == -EPERM
    assert tables.call("do_mmu_update", tables.list, 1, 0, DOMID_SELF | (OTHER + 1) << 16) == -EPERM
    assert tables.call("do_update_va_mapping_otherdomain", 0, 0, 0, OTHER) == -EPERM


def test_tables_of_a_domain_whose_number_is_none(tables: Tables) -> None:
    beyond = tables.machine.host.max_domains + 3
    domains = tables.machine.keep((ctypes.c_void_p * (beyond + 1))())
    domains[DOMID] = domains[beyond] = tables.guest.at
    tables.machine.host.domains = native.address(domains)
    tables.guest.rec.is_privileged = 1
    assert tables.call("do_mmu_update", tables.list, 0, 0, DOMID_SELF | (beyond + 1) << 16) == -ESRCH
    assert tables.call("do_mmu_update", tables.list, 0, 0, DOMID_SELF | (DOMID + 1) << 16) == 0


@pytest.mark.parametrize(
    ("name", "request_", "size"),
    [("do_mmu_update", "<QQ", 16), ("do_mmuext_op", "<QQQ", 24)],
)
def test_a_batch_ends_when_its_time_is_over(tables: Tables, name: str, request_: str, size: int) -> None:
    """Nothing is left over here: it is the time alone that ends it."""
    tables.frame.type_refs = tables.frame.type = 0
    command = tables.mfn << 12 if size == 16 else 6  # a word of a frame that is no table; flush this vcpu
    one = struct.pack(request_, command, *[0] * (size // 8 - 1))
    tables.machine.write(tables.list, 3 * one)
    tables.machine.host.work = WORK_LIMIT
    done = tables.list + 0x800
    tables.call(name, tables.list, 3, done, DOMID_SELF)
    assert tables.rec.preempted == 1
    assert tables.machine.read(done, 4) == struct.pack("<I", 1)


# --- entries that map grants ----------------------------------------------------------------------------------------


def test_an_entry_for_a_grant_is_named_by_its_address_or_by_what_it_maps(tables: Tables) -> None:
    entry = (tables.mfn << 12) + 40
    assert tables.grant_entry(entry, 1) == 5
    assert tables.grant_entry(entry + 4, 1) == -1
    tables.validate_lowest()
    assert tables.grant_entry(63 << 12, 0) == 63
    for address in (63 << 12 | ALIAS, NOWHERE, HIDDEN):
        assert tables.grant_entry(address, 0) == -1


@pytest.mark.parametrize(("field", "value"), NOT_A_TABLE)
def test_an_entry_for_a_grant_is_one_of_a_domains_own_table(tables: Tables, field: str, value: int) -> None:
    setattr(tables.frame, field, value)
    setattr(tables.validate_lowest(), field, value)
    assert tables.grant_entry(tables.mfn << 12, 1) == -1
    assert tables.grant_entry(63 << 12, 0) == -1


# --- descriptors --------------------------------------------------------------------------------------------------


def test_a_page_of_the_ldt_is_one_that_is_mapped(tables: Tables) -> None:
    page = tables.guest.page()
    assert descriptors.map_ldt_page(tables.vcpu.at, 0) == 0  # frame 0 is nobody's
    tables.rec.ldt_base = NOWHERE
    assert not descriptors.map_ldt_page(tables.vcpu.at, 0)
    tables.rec.ldt_base = page
    tables.mapping[page >> 12] = page  # not present
    assert not descriptors.map_ldt_page(tables.vcpu.at, 0)
    tables.mapping[page >> 12] = page | PRESENT
    tables.show_low_memory_in_the_hypervisors_range()
    tables.rec.ldt_base = HIDDEN + page
    assert not descriptors.map_ldt_page(tables.vcpu.at, 0)
    assert tables.machine.frames[page >> 12].type_refs == 0
    tables.rec.ldt_base = page
    assert descriptors.map_ldt_page(tables.vcpu.at, 0)
    assert (tables.machine.frames[page >> 12].type, tables.rec.ldt_frames[0]) == (SEGDESC, page >> 12)
    descriptors.destroy_ldt(tables.vcpu.at)


def test_the_gdt_ends_before_the_hypervisors_descriptors(tables: Tables) -> None:
    frames = (ctypes.c_uint64 * 16)(*[tables.guest.page() >> 12 for _ in range(15)])
    assert descriptors.set_gdt(tables.vcpu.at, ctypes.addressof(frames), 14 * 512 + 1) == -EINVAL
    assert all(tables.machine.frames[mfn].refs == 1 for mfn in frames[:15])
    assert descriptors.set_gdt(tables.vcpu.at, ctypes.addressof(frames), 14 * 512) == 0
    descriptors.destroy_gdt(tables.vcpu.at)


# --- frames that change hands -------------------------------------------------------------------------------------


def test_what_the_hypervisor_shares_does_not_change_hands(tables: Tables) -> None:
    frames, mfn = native.functions("frames"), tables.guest.page() >> 12
    tables.guest.rec.tot_pages = 1
    tables.machine.frames[mfn].flags = ALLOCATED | XEN
    assert not frames.steal_frame(tables.machine.at, mfn, DOMID)
    tables.machine.frames[mfn].flags = ALLOCATED
    assert frames.steal_frame(tables.machine.at, mfn, DOMID)
