from paravirt.hypervisor.records cimport Host, Vcpu, u8, u32, u64

cdef bint read_msr(Host* host, Vcpu* v, u32 number, u64* value) noexcept nogil
cdef bint write_msr(Host* host, Vcpu* v, u32 number, u64 value) noexcept nogil
cdef void fill_hypercall_page(u8* page) noexcept nogil
cdef bint write_hypercall_page(Host* host, Vcpu* v, u64 value) noexcept nogil
