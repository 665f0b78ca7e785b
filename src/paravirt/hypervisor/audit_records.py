# cython: language_level=3, cdivision=True
# mypy: ignore-errors
"""The hypervisor's records as plain data, for the audit: the frame table, and what each domain holds.

Nothing is decided or counted here.  The caller holds the machine lock.
"""

import ctypes

import cython
import numpy as np
from cython.cimports.libc.stdint import uintptr_t
from cython.cimports.paravirt.hypervisor.records import DomainPtr, FramePtr, VcpuPtr, u64
from cython.cimports.paravirt.hypervisor.records import Frame as FrameRecord
from cython.cimports.paravirt.hypervisor.views import Domain, Host, Vcpu

NO_FRAME = 0xFFFFFFFFFFFFFFFF


def frame_table(host: Host) -> object:
    """The frame table itself, live and read-only: a numpy array of records with the fields of `Frame`."""
    frame: FramePtr = host.rec.frames
    start: uintptr_t = cython.cast(uintptr_t, frame)
    size: u64 = cython.sizeof(FrameRecord)
    fields = {
        "refs": (np.uint32, cython.cast(uintptr_t, cython.address(frame.refs)) - start),
        "type_refs": (np.uint32, cython.cast(uintptr_t, cython.address(frame.type_refs)) - start),
        "type": (np.uint8, cython.cast(uintptr_t, cython.address(frame.type)) - start),
        "flags": (np.uint8, cython.cast(uintptr_t, cython.address(frame.flags)) - start),
        "owner": (np.uint16, cython.cast(uintptr_t, cython.address(frame.owner)) - start),
        "nr_validated": (np.uint16, cython.cast(uintptr_t, cython.address(frame.nr_validated)) - start),
        "linear": (np.int16, cython.cast(uintptr_t, cython.address(frame.linear)) - start),
        "tlb_stamp": (np.uint64, cython.cast(uintptr_t, cython.address(frame.tlb_stamp)) - start),
    }
    layout = np.dtype(
        {
            "names": list(fields),
            "formats": [kind for kind, _ in fields.values()],
            "offsets": [offset for _, offset in fields.values()],
            "itemsize": size,
        }
    )
    raw = (ctypes.c_uint8 * (host.rec.nr_frames * size)).from_address(start)
    table = np.frombuffer(raw, dtype=layout)
    table.flags.writeable = False
    return table


def machine_record(host: Host) -> dict:
    """What the machine as a whole has: m2p_mfn, m2p_l3_mfn, m2p_slot, reserved_l4, ..."""
    first: u64 = (cython.cast(uintptr_t, host.rec.m2p) - cython.cast(uintptr_t, host.rec.memory)) >> 12
    return {
        "nr_frames": host.rec.nr_frames,
        "free_frames": host.rec.free_frames,
        "m2p_mfn": first,
        "m2p_l3_mfn": host.rec.m2p_l3_mfn,
        "m2p_slot": 256 + host.rec.m2p_index,
        "reserved_l4": [host.rec.reserved_l4[i] for i in range(16)],
        "kernel_l4": [host.rec.kernel_l4[i] for i in range(16)],
        "flush_clock": host.rec.flush_clock,
        "pcpu_flush_clocks": [host.rec.pcpus[i].flush_clock for i in range(host.rec.nr_pcpus)],
    }


def domain_record(domain: Domain) -> dict:
    """What one domain has and holds, by the names of its record."""
    rec: DomainPtr = domain.rec
    return {
        "domid": rec.domid,
        "is_service": rec.is_service != 0,
        "dying": rec.dying != 0,
        "tot_pages": rec.tot_pages,
        "max_pages": rec.max_pages,
        "shared_info_mfn": rec.shared_info_mfn,
        "old_table": rec.old.mfn,
        "old_table_partial": rec.old.partial != 0,
        "arch_vm_assist": rec.arch_vm_assist,
        "fifo_array": [rec.fifo_array[i] for i in range(rec.fifo_array_pages)],
        "pirq_eoi_mfn": None if domain.pirq_eoi_mfn == NO_FRAME else domain.pirq_eoi_mfn,
    }


def vcpu_record(vcpu: Vcpu) -> dict:
    """What one vcpu holds: frames by number, 0 for none, and the tables that the engine was told."""
    v: VcpuPtr = vcpu.rec
    return {
        "id": v.id,
        "initialised": v.initialised != 0,
        "kernel_table": v.kernel_table,
        "user_table": v.user_table,
        "old_table": v.old.mfn,
        "old_table_partial": v.old.partial != 0,
        "kernel_cr3": v.cpu.kernel_cr3,
        "user_cr3": v.cpu.user_cr3,
        "gdt_frames": [v.gdt_frames[i] for i in range(16)],
        "gdt_entries": v.gdt_entries,
        "ldt_frames": [v.ldt_frames[i] for i in range(16)],
        "info_mfn": v.info_mfn,
        "fifo_control_mfn": v.fifo_control_mfn,
    }
