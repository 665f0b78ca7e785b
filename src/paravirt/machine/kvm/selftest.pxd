from paravirt.machine.cpu cimport Cpu, CpuExit, CpuOps, u64

ctypedef struct Stop:
    int kind
    u64 vector
    u64 error
    u64 address
    u64 rip

ctypedef Stop* StopPtr

cdef int on_stop(void* owner, Cpu* cpu, const CpuExit* exit) noexcept nogil

cdef class Bench:
    cdef object findings
    cdef object memory
    cdef object engine
    cdef CpuOps* ops
    cdef void* handle
    cdef Cpu cpu
    cdef void* other
    cdef Stop stop
