# Pools of physical CPUs: made and destroyed, and who changes from one to another.
from paravirt.hypervisor.records cimport Domain, Host, Pcpu, u32, u64
from paravirt.hypervisor.sched.policy cimport Cpupool, SchedPolicy, Unit

cdef SchedPolicy* policy_named(const char* name) noexcept nogil
cdef bint set_policy(Host* host, const char* name) noexcept nogil
cdef Cpupool* find_pool(Host* host, u32 number) noexcept nogil
cdef Cpupool* create_pool(Host* host, const char* policy) noexcept nogil
cdef bint is_empty(Cpupool* pool) noexcept nogil
cdef void destroy_pool(Cpupool* pool) noexcept nogil
cdef void assign_cpu(Cpupool* pool, Pcpu* p) noexcept nogil
cdef void unassign_cpu(Pcpu* p) noexcept nogil
cdef void params_changed(Cpupool* pool) noexcept nogil
cdef bint leaves_pool(Pcpu* p) noexcept nogil
cdef bint runs_somewhere(Domain* d) noexcept nogil
cdef bint move_to_pool(Domain* d, Cpupool* pool) noexcept nogil
cdef void move_unit_to_pool(Unit* u, Cpupool* pool, u64 at) noexcept nogil
