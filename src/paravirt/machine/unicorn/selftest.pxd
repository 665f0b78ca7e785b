from paravirt.machine.cpu cimport Cpu, CpuExit, CpuOps, u64

ctypedef struct Probe:
    CpuOps* ops
    void* engine
    int step
    int kinds[16]
    u64 vectors[16]
    u64 errors[16]
    u64 addresses[16]
    u64 rips[16]

ctypedef Probe* ProbePtr

cdef int on_probe_exit(void* owner, Cpu* cpu, const CpuExit* exit) noexcept nogil
