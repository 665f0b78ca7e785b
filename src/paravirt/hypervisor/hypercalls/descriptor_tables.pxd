from paravirt.hypervisor.records cimport Host, Vcpu, u16, u32, u64, i64

cdef i64 do_set_gdt(Host* host, Vcpu* v, u64* args) noexcept nogil
cdef i64 do_update_descriptor(Host* host, Vcpu* v, u64* args) noexcept nogil
cdef i64 set_gdt(Vcpu* v, u64* frames, u32 entries) noexcept nogil
cdef void destroy_gdt(Vcpu* v) noexcept nogil
cdef bint map_ldt_page(Vcpu* v, u32 page) noexcept nogil
cdef void destroy_ldt(Vcpu* v) noexcept nogil
