from paravirt.hypervisor.records cimport Host, Vcpu, u32, u64

# One exit of a guest: 32 bytes, as take() gives them out.
ctypedef struct TraceRecord:
    u64 time         # system time, ns
    u32 kind         # EXIT_*
    u32 vector       # of an exception, or the hypercall's number
    u32 domid
    u32 vcpu
    u64 rip          # where the guest goes on

cdef void trace_exit(Host* host, Vcpu* v, u32 kind, u64 vector, u64 rip) noexcept nogil
