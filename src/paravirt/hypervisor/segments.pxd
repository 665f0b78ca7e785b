from paravirt.hypervisor.records cimport Domain, Host, Vcpu, u8, u16, u32, u64, i64
cdef i64 load_segment(Host* host, Vcpu* v, int seg, u16 selector) noexcept nogil
cdef bint check_iret_selectors(Vcpu* v, u16 cs, u16 ss) noexcept nogil
cdef bint check_descriptor(Domain* d, u64* descriptor) noexcept nogil
cdef bint emulate_segment(Host* host, Vcpu* v) noexcept nogil
