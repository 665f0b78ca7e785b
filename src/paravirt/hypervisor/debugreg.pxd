from paravirt.hypervisor.records cimport Vcpu, u32, u64, i64

cdef i64 set_debug_register(Vcpu* v, u32 number, u64 value) noexcept nogil
cdef i64 get_debug_register(Vcpu* v, u32 number, u64* value) noexcept nogil
