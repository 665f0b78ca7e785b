# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
"""The event trace: every exit of every guest, in order, while tracing is on.

Two runs in deterministic mode with the same inputs give the same bytes.
"""

import cython
from cython.cimports.libc.stdlib import realloc
from cython.cimports.paravirt.hypervisor.records import HostPtr, VcpuPtr, u32, u64
from cython.cimports.paravirt.hypervisor.timekeeping import now
from cython.cimports.paravirt.hypervisor.trace import TraceRecord
from cython.cimports.paravirt.machine.cpu import EXIT_EXCEPTION, EXIT_SOFTINT, EXIT_SYSCALL, BytePtr, CpuExitPtr

RECORDS_PER_STEP = cython.declare(u64, 65536)
PAGE_FAULT = cython.declare(u32, 14)
MAX_RECORDS = cython.declare(u64, 64 << 20)


def trace_exit(host: HostPtr, v: VcpuPtr, exit: CpuExitPtr) -> cython.void:
    """Append a record of an exit that was carried out; where there is no room, tracing stops."""
    record: cython.pointer(TraceRecord)
    grown: cython.p_void
    if host.trace_count == host.trace_room:
        grown = cython.NULL
        if host.trace_room < MAX_RECORDS:
            grown = realloc(host.trace_buffer, (host.trace_room + RECORDS_PER_STEP) * cython.sizeof(TraceRecord))
        if grown == cython.NULL:
            host.trace_on = 0
            return
        host.trace_buffer = cython.cast(BytePtr, grown)
        host.trace_room += RECORDS_PER_STEP
    record = cython.cast(cython.pointer(TraceRecord), host.trace_buffer) + host.trace_count
    record.time = now(host)
    record.kind = exit.kind
    record.vector = cython.cast(u32, v.hypercall) if exit.kind == EXIT_SYSCALL else exit.vector
    record.domid = v.domain.domid
    record.vcpu = v.id
    record.rip = v.cpu.rip
    record.address = exit.address if exit.kind == EXIT_EXCEPTION and exit.vector == PAGE_FAULT else 0
    record.error_code = exit.error_code if exit.kind == EXIT_EXCEPTION else 0
    record.entered = (
        (exit.kind == EXIT_EXCEPTION or exit.kind == EXIT_SOFTINT)
        and exit.vector < 256
        and v.traps[exit.vector].address == v.cpu.rip
    )
    host.trace_count += 1
