from paravirt.hypervisor.records cimport Host, Vcpu, u32

ctypedef struct Leaf:
    u32 number
    u32 subleaf      # 0xFFFFFFFF: any
    u32 regs[4]      # eax, ebx, ecx, edx

cdef Leaf leaves[64]
cdef u32 nr_leaves
cdef void cpuid(Host* host, Vcpu* v, u32 leaf, u32 subleaf, u32* regs) noexcept nogil
