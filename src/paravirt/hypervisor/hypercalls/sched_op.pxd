# sched_op, the older sched_op_compat, and set_timer_op.
from paravirt.hypervisor.records cimport Host, Vcpu, u32, u64, i64

cdef void block(Vcpu* v) noexcept nogil
cdef i64 poll_ports(Vcpu* v, u64 ports, u32 count, u32* last) noexcept nogil
cdef i64 poll(Vcpu* v, u64 arg) noexcept nogil
cdef i64 remote_shutdown(Host* host, Vcpu* v, u64 arg) noexcept nogil

cdef i64 do_sched_op(Host* host, Vcpu* v, u64* args) noexcept nogil
cdef i64 do_sched_op_compat(Host* host, Vcpu* v, u64* args) noexcept nogil
cdef i64 do_set_timer_op(Host* host, Vcpu* v, u64* args) noexcept nogil
