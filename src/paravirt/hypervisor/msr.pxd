from paravirt.hypervisor.records cimport Host, Vcpu, u32, u64

cdef bint read_msr(Host* host, Vcpu* v, u32 number, u64* value) noexcept nogil
cdef bint write_msr(Host* host, Vcpu* v, u32 number, u64 value) noexcept nogil
cdef bint canonical(u64 address) noexcept nogil
