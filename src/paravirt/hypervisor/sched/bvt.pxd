# The BVT policy.
from paravirt.hypervisor.records cimport Pcpu, i64, u32, u64
from paravirt.hypervisor.sched.policy cimport Cpupool, SchedPolicy, Unit

cdef SchedPolicy bvt

cdef void bvt_insert(Unit* u, u64 at) noexcept nogil
cdef void bvt_remove(Unit* u) noexcept nogil
cdef bint bvt_wake(Unit* u, u64 at) noexcept nogil
cdef void bvt_sleep(Unit* u, u64 at) noexcept nogil
cdef void bvt_charge(Unit* u, u64 ran, u64 at) noexcept nogil
cdef void bvt_tick(Cpupool* pool, u64 at) noexcept nogil
cdef Unit* bvt_do_schedule(Pcpu* p, u64 at) noexcept nogil
cdef u64 bvt_deadline(Pcpu* p, u64 at) noexcept nogil
cdef void bvt_moved(Unit* u, Pcpu* old, u64 at) noexcept nogil
cdef void bvt_adjusted(Unit* u, u64 at) noexcept nogil

cdef i64 evt(Unit* u) noexcept nogil
cdef Unit* lowest(Pcpu* p, Unit* but) noexcept nogil
cdef void time_goes_on(Pcpu* p) noexcept nogil
cdef i64 allowance(Unit* u) noexcept nogil
