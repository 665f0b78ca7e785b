# The rotating policy.
from paravirt.hypervisor.records cimport Host, Pcpu, Vcpu, u64
from paravirt.hypervisor.sched.policy cimport SchedPolicy

cdef SchedPolicy rotate

cdef Vcpu* next_after(Pcpu* p, Vcpu* v) noexcept nogil
cdef void rotate_init(Host* host) noexcept nogil
cdef void rotate_deinit(Host* host) noexcept nogil
cdef void rotate_insert(Vcpu* v) noexcept nogil
cdef void rotate_remove(Vcpu* v) noexcept nogil
cdef Pcpu* rotate_pick_cpu(Vcpu* v) noexcept nogil
cdef bint rotate_wake(Vcpu* v, u64 at) noexcept nogil
cdef void rotate_sleep(Vcpu* v, u64 at) noexcept nogil
cdef void rotate_yield(Vcpu* v) noexcept nogil
cdef Vcpu* rotate_do_schedule(Pcpu* p, u64 at) noexcept nogil
cdef void rotate_tick(Pcpu* p, u64 at) noexcept nogil
