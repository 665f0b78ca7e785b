# The credit policy.
from paravirt.hypervisor.records cimport Pcpu, i64, u32, u64
from paravirt.hypervisor.sched.policy cimport Cpupool, SchedPolicy, Unit

cdef SchedPolicy credit

cdef void credit_insert(Unit* u, u64 at) noexcept nogil
cdef void credit_remove(Unit* u) noexcept nogil
cdef bint credit_wake(Unit* u, u64 at) noexcept nogil
cdef void credit_sleep(Unit* u, u64 at) noexcept nogil
cdef void credit_charge(Unit* u, u64 ran, u64 at) noexcept nogil
cdef void credit_tick(Cpupool* pool, u64 at) noexcept nogil
cdef Unit* credit_do_schedule(Pcpu* p, u64 at) noexcept nogil
cdef u64 credit_deadline(Pcpu* p, u64 at) noexcept nogil
cdef void credit_moved(Unit* u, Pcpu* old, u64 at) noexcept nogil
cdef void credit_adjusted(Unit* u, u64 at) noexcept nogil

cdef Unit* best_waiting(Pcpu* p, Unit* current) noexcept nogil
cdef u64 may_move(Unit* u, Pcpu* p, unsigned char worst, u64 at) noexcept nogil
cdef Unit* to_steal(Pcpu* p, unsigned char worst, u64 at) noexcept nogil
cdef u64 next_arrival(Pcpu* p, unsigned char worst, u64 at) noexcept nogil
cdef Unit* balance(Pcpu* p, Unit* local, u64 at) noexcept nogil
cdef u64 until_account(Pcpu* p, Unit* chosen, bint contended, u64 at) noexcept nogil
cdef void set_active(Unit* u, bint active) noexcept nogil
cdef void earn(Unit* u, u64 fair, u64 bound) noexcept nogil
cdef u64 settle(Unit* u, u64 peak) noexcept nogil
cdef u64 share_of_cap(Unit* u, u64 period) noexcept nogil
cdef bint account(Cpupool* pool, u64 at) noexcept nogil
