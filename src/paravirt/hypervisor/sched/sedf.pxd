# The SEDF policy.
from paravirt.hypervisor.records cimport Pcpu, i64, u32, u64
from paravirt.hypervisor.sched.policy cimport Cpupool, SchedPolicy, Unit

cdef SchedPolicy sedf

cdef void sedf_insert(Unit* u, u64 at) noexcept nogil
cdef void sedf_remove(Unit* u) noexcept nogil
cdef bint sedf_wake(Unit* u, u64 at) noexcept nogil
cdef void sedf_sleep(Unit* u, u64 at) noexcept nogil
cdef void sedf_charge(Unit* u, u64 ran, u64 at) noexcept nogil
cdef void sedf_tick(Cpupool* pool, u64 at) noexcept nogil
cdef Unit* sedf_do_schedule(Pcpu* p, u64 at) noexcept nogil
cdef u64 sedf_deadline(Pcpu* p, u64 at) noexcept nogil
cdef void sedf_moved(Unit* u, Pcpu* old, u64 at) noexcept nogil
cdef void sedf_adjusted(Unit* u, u64 at) noexcept nogil

cdef bint by_weight(Unit* u) noexcept nogil
cdef u64 extra_weight(Unit* u) noexcept nogil
cdef void share_by_weight(Pcpu* p) noexcept nogil
cdef void begin_period(Unit* u, u64 at) noexcept nogil
cdef Unit* earliest(Pcpu* p, Unit* but) noexcept nogil
cdef Unit* extra_turn(Pcpu* p, Unit* but) noexcept nogil
cdef u64 next_period(Pcpu* p) noexcept nogil
