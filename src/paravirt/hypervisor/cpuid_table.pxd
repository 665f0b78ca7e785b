from paravirt.hypervisor.records cimport Host, Vcpu, u32, u64

ctypedef struct Leaf:
    u32 number
    u32 subleaf      # 0xFFFFFFFF: any
    u32 regs[4]      # eax, ebx, ecx, edx

ctypedef Leaf* LeafPtr

ctypedef struct Leaves:
    u32 count
    Leaf leaves[64]

ctypedef Leaves* LeavesPtr

cdef Leaves plain
cdef Leaves wide     # where processes use the host's vector state: see cpuid.py
cdef offer_native_state(Host* host, dict native)
cdef void fill(Leaves* table, dict policy)
cdef u32 size_of_state(Leaves* table, u64 xcr0) noexcept nogil
cdef void cpuid(Host* host, Vcpu* v, u32 leaf, u32 subleaf, u32* regs) noexcept nogil
