from paravirt.hypervisor.records cimport Host, Vcpu, u32, u64
from paravirt.machine.cpu cimport CpuExit

# One exit of a guest: 48 bytes, as take_trace() gives them out.
ctypedef struct TraceRecord:
    u64 time         # system time, ns
    u32 kind         # EXIT_*
    u32 vector       # of an exception, or the hypercall's number
    u32 domid
    u32 vcpu
    u64 rip          # where the guest goes on
    u64 address      # of a page fault
    u32 error_code   # of an exception
    u32 entered      # an exception or interrupt: the guest goes on at its handler for it

cdef void trace_exit(Host* host, Vcpu* v, const CpuExit* exit) noexcept nogil
