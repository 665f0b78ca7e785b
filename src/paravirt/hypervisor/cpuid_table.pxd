from paravirt.hypervisor.records cimport Host, Vcpu, u32
cdef void cpuid(Host* host, Vcpu* v, u32 leaf, u32 subleaf, u32* regs) noexcept nogil
