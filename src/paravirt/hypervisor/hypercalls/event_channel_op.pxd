from paravirt.hypervisor.records cimport Domain, Host, Vcpu, u16, u32, u64, i64

cdef i64 do_event_channel_op(Host* host, Vcpu* v, u64* args) noexcept nogil
cdef i64 do_event_channel_op_compat(Host* host, Vcpu* v, u64* args) noexcept nogil
cdef u64 argument_size(u64 command) noexcept nogil
cdef i64 own_domid(Host* host, Vcpu* v, u16 domid) noexcept nogil
cdef bint is_global_virq(u32 virq) noexcept nogil
cdef i64 op_alloc_unbound(Host* host, Vcpu* v, u32* a) noexcept nogil
cdef i64 op_bind_interdomain(Host* host, Vcpu* v, u32* a) noexcept nogil
cdef i64 op_bind_virq(Domain* d, u32* a) noexcept nogil
cdef i64 op_bind_ipi(Domain* d, u32* a) noexcept nogil
cdef i64 op_bind_vcpu(Domain* d, u32 port, u32 vcpu) noexcept nogil
cdef i64 op_status(Host* host, Vcpu* v, u32* a) noexcept nogil
cdef i64 op_reset(Host* host, Vcpu* v, u16 domid) noexcept nogil
cdef i64 op_init_control(Domain* d, u32* a) noexcept nogil
cdef i64 carry_out(Host* host, Vcpu* v, u64 command, u32* a) noexcept nogil
