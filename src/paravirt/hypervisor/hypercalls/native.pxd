from paravirt.hypervisor.records cimport Host, Vcpu, u32, u64, i64

cdef i64 dispatch(Host* host, Vcpu* v, u64 number, u64* args) noexcept nogil
cdef void hypercall(Host* host, Vcpu* v) noexcept nogil
cdef i64 do_multicall(Host* host, Vcpu* v, u64* args) noexcept nogil
cdef i64 do_iret(Host* host, Vcpu* v, u64* args) noexcept nogil
cdef i64 do_stack_switch(Host* host, Vcpu* v, u64* args) noexcept nogil
cdef i64 do_fpu_taskswitch(Host* host, Vcpu* v, u64* args) noexcept nogil
cdef i64 do_set_segment_base(Host* host, Vcpu* v, u64* args) noexcept nogil
cdef void register_native(Host* host) noexcept nogil
cdef i64 continue_multicall(Vcpu* v, u64 at, u64 count) noexcept nogil
