"""The audit's roots: everything outside page tables that holds a frame, read from the records at one moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from paravirt.abi.grant_table import GNTMAP_device_map, GNTMAP_host_map, GNTMAP_readonly
from paravirt.hypervisor.audit_records import domain_record, frame_table, machine_record, vcpu_record

if TYPE_CHECKING:
    from paravirt.hypervisor.views import Domain, Host

L4, SEGDESC, WRITABLE = 4, 5, 7


@dataclass(frozen=True)
class Root:
    """Frames that something holds, each once, and the type that they are used as (0: none)."""

    label: str
    mfns: list[int]
    type: int


@dataclass
class Roots:
    """All of them.

    Attributes:
        frame_table: the records themselves, live.
        frames: what is held.
        processor_tables: (in words, mfn, the CR3 that the engine was told) of L4 tables in use.
        totals: how many frames each domain is said to have.
        granted: (domain, mfn, whether it may write) of mappings through grants.
        mapped: the frames of these.
        dying: domains whose end has begun.
    """

    frame_table: npt.NDArray[np.void]
    free_frames: int
    m2p_mfn: int
    m2p_l3_mfn: int
    m2p_slot: int
    reserved_l4: list[int]
    kernel_l4: list[int]
    frames: list[Root] = field(default_factory=list)
    processor_tables: list[tuple[str, int, int]] = field(default_factory=list)
    totals: dict[int, int] = field(default_factory=dict)
    granted: set[tuple[int, int, bool]] = field(default_factory=set)
    mapped: set[int] = field(default_factory=set)
    dying: set[int] = field(default_factory=set)

    def hold(self, label: str, mfns: list[int], type: int = 0) -> None:
        """Note frames that are held."""
        if mfns:
            self.frames.append(Root(label, mfns, type))

    def is_granted(self, mapper: int, mfn: int, writable: bool) -> bool:
        """Whether a domain holds a grant that lets it map a frame so."""
        if mapper in self.dying:  # its grants have been given back, its page tables not yet all
            return True
        return (mapper, mfn, True) in self.granted or (not writable and (mapper, mfn, False) in self.granted)

    def is_mapped_by_anybody(self, mfn: int) -> bool:
        """Whether some domain still has a mapping of a frame whose owner is gone."""
        return mfn in self.mapped


def collect(host: Host) -> Roots:
    """Read the roots; the caller holds the machine lock."""
    machine = machine_record(host)
    roots = Roots(
        frame_table=frame_table(host),
        free_frames=machine["free_frames"],
        m2p_mfn=machine["m2p_mfn"],
        m2p_l3_mfn=machine["m2p_l3_mfn"],
        m2p_slot=machine["m2p_slot"],
        reserved_l4=machine["reserved_l4"],
        kernel_l4=machine["kernel_l4"],
    )
    for domain in host.domains.values():
        _collect_domain(roots, domain)
    return roots


def _collect_domain(roots: Roots, domain: Domain) -> None:
    record = domain_record(domain)
    name = f"domain {record['domid']}"
    roots.totals[record["domid"]] = record["tot_pages"]
    _collect_old_table(roots, name, record)
    roots.hold(f"{name}'s event array", record["fifo_array"], WRITABLE)
    if record["pirq_eoi_mfn"] is not None:
        roots.hold(f"{name}'s map of interrupts", [record["pirq_eoi_mfn"]], WRITABLE)
    if domain.is_dying:
        roots.dying.add(record["domid"])
    _collect_mappings(roots, domain, name)
    for vcpu in domain.vcpus:
        _collect_vcpu(roots, f"{name}'s vcpu {vcpu.id}", vcpu_record(vcpu))


def _collect_old_table(roots: Roots, name: str, record: dict[str, Any]) -> None:
    """What was begun and not finished: a use only if the frame has not got that itself."""
    if record["old_table"]:
        mfn, partial = record["old_table"], record["old_table_partial"]
        type = 0 if partial else int(roots.frame_table["type"][mfn])
        roots.hold(f"{name}: a table that is being released", [mfn], type)


def _collect_mappings(roots: Roots, domain: Domain, name: str) -> None:
    """Mappings through grants.  Those for the processor are entries of the domain's page tables, which are found
    there; but Domain 0 has none, and neither has a device."""
    for mapping in domain.state.maptrack.mappings.values():
        owner = domain.host.find(mapping.domid)
        grants = None if owner is None else owner.state.grants
        if grants is None or mapping.ref not in grants.active:
            continue  # a mapping of nothing: what it should hold is missing in the count
        mfn, writable = grants.active[mapping.ref].mfn, not mapping.flags & GNTMAP_readonly
        kinds = mapping.flags & (GNTMAP_device_map if domain.vcpus else GNTMAP_device_map | GNTMAP_host_map)
        roots.mapped.add(mfn)
        roots.granted.add((domain.domid, mfn, writable))
        roots.hold(
            f"{name}'s mapping of grant {mapping.ref} of domain {mapping.domid}",
            [mfn] * kinds.bit_count(),
            WRITABLE if writable else 0,
        )


def _collect_vcpu(roots: Roots, name: str, record: dict[str, Any]) -> None:
    kernel, user = record["kernel_table"], record["user_table"]
    if kernel:
        roots.hold(f"{name}: kernel page table", [kernel], L4)
    if user:
        roots.hold(f"{name}: user page table", [user], L4)
    roots.processor_tables += [
        (f"{name}'s {mode} page table", mfn, record[f"{mode}_cr3"])
        for mfn, mode in ((kernel, "kernel"), (user, "user"))
        if mfn
    ]
    _collect_old_table(roots, name, record)
    roots.hold(f"{name}: GDT", [mfn for mfn in record["gdt_frames"] if mfn], SEGDESC)
    roots.hold(f"{name}: LDT", [mfn for mfn in record["ldt_frames"] if mfn], SEGDESC)
    for label, key in (("vcpu_info", "info_mfn"), ("event control block", "fifo_control_mfn")):
        if record[key]:
            roots.hold(f"{name}: {label}", [record[key]], WRITABLE)
