# Where units live: placing them, and moving them from one physical CPU to another.
from paravirt.hypervisor.records cimport Host, Pcpu, Vcpu, u64
from paravirt.hypervisor.sched.policy cimport Unit

cdef void leave_engine(Pcpu* p) noexcept nogil
cdef void forget_vcpu(Host* host, Vcpu* v) noexcept nogil
cdef Pcpu* where_running(Unit* u) noexcept nogil
cdef void settle_unit(Unit* u, Pcpu* p, u64 at) noexcept nogil
cdef void move_unit(Unit* u, Pcpu* p, u64 at) noexcept nogil
