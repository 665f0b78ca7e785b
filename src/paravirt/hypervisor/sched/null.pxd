# The null policy.
from paravirt.hypervisor.records cimport Pcpu, i64, u32, u64
from paravirt.hypervisor.sched.policy cimport Cpupool, SchedPolicy, Unit

cdef SchedPolicy null

cdef void null_insert(Unit* u, u64 at) noexcept nogil
cdef void null_remove(Unit* u) noexcept nogil
cdef bint null_wake(Unit* u, u64 at) noexcept nogil
cdef void null_sleep(Unit* u, u64 at) noexcept nogil
cdef void null_charge(Unit* u, u64 ran, u64 at) noexcept nogil
cdef void null_tick(Cpupool* pool, u64 at) noexcept nogil
cdef bint may_take(Unit* u, Pcpu* p) noexcept nogil
cdef Unit* null_do_schedule(Pcpu* p, u64 at) noexcept nogil
cdef u64 null_deadline(Pcpu* p, u64 at) noexcept nogil
cdef void null_moved(Unit* u, Pcpu* old, u64 at) noexcept nogil
cdef void null_adjusted(Unit* u, u64 at) noexcept nogil
