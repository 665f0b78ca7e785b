# The scheduling mechanism: runnable, blocked, offline; waking, kicking, choosing what runs next; shutdown.
from paravirt.hypervisor.records cimport Domain, Host, Pcpu, Vcpu, pthread_cond_t, u8, u32, u64
from paravirt.hypervisor.sched.policy cimport Unit

cdef extern from "<pthread.h>" nogil:
    int pthread_cond_signal(pthread_cond_t* condition)

cdef enum ShutdownCode:
    SHUTDOWN_CODE_INVALID = 0xFF   # Domain.shutdown_code before there is one

cdef Unit* join_unit(Vcpu* v) noexcept nogil
cdef void fell_asleep(Unit* u, u64 at) noexcept nogil
cdef void send_away(Pcpu* p, u64 at) noexcept nogil
cdef bint wakes(Unit* u, u64 at) noexcept nogil
cdef Pcpu* idle_for(Unit* u) noexcept nogil
cdef void tickle(Unit* u) noexcept nogil
cdef void offer(Pcpu* p, bint everybody) noexcept nogil
cdef void change_unit(Pcpu* p, Unit* u, u64 at) noexcept nogil
cdef void set_unit_affinity(Unit* u, u64 affinity, u64 preferred) noexcept nogil
cdef Unit* choose_unit(Pcpu* p, u64 at) noexcept nogil
cdef void vcpu_spins(Vcpu* v) noexcept nogil

cdef bint runs_sibling(Pcpu* p, Unit* u) noexcept nogil
cdef u8 resting_state(Vcpu* v) noexcept nogil
cdef void kick(Pcpu* p) noexcept nogil
cdef void force_reschedule(Pcpu* p) noexcept nogil
cdef void made_runnable(Vcpu* v) noexcept nogil
cdef void stop_running(Vcpu* v) noexcept nogil

cdef void init_domain(Domain* d) noexcept nogil
cdef void init_vcpu(Vcpu* v) noexcept nogil
cdef void remove_vcpu(Vcpu* v) noexcept nogil

cdef bint runnable(Vcpu* v) noexcept nogil
cdef bint events_need_delivery(Vcpu* v) noexcept nogil
cdef void vcpu_kick(Vcpu* v) noexcept nogil
cdef void vcpu_wake(Vcpu* v) noexcept nogil
cdef void vcpu_block(Vcpu* v) noexcept nogil
cdef void vcpu_yield(Vcpu* v) noexcept nogil
cdef void vcpu_up(Vcpu* v) noexcept nogil
cdef void vcpu_down(Vcpu* v) noexcept nogil
cdef void domain_sleep(Domain* d) noexcept nogil
cdef void domain_wake(Domain* d) noexcept nogil
cdef void domain_pause(Domain* d) noexcept nogil
cdef void domain_unpause(Domain* d) noexcept nogil
cdef bint domain_pause_by_systemcontroller(Domain* d) noexcept nogil
cdef bint domain_unpause_by_systemcontroller(Domain* d) noexcept nogil
cdef void domain_shutdown(Domain* d, u32 reason) noexcept nogil

cdef Vcpu* pick_next(Pcpu* p) noexcept nogil
cdef u64 earliest_deadline(Pcpu* p) noexcept nogil
cdef bint nobody_waits(Pcpu* p) noexcept nogil
cdef u64 next_alarm(Pcpu* p) noexcept nogil
cdef void rearm(Vcpu* current, Pcpu* p) noexcept nogil
cdef void deadline_changed(Vcpu* current, Vcpu* v, u64 before) noexcept nogil
