from paravirt.machine.cpu cimport Cpu, CpuExit
from paravirt.hypervisor.records cimport Host, Pcpu, Vcpu, pthread_cond_t, pthread_mutex_t, u32, u64, i64

cdef extern from *:
    """
    #include <pthread.h>
    #include <time.h>
    static inline int paravirt_cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *mutex,
                                               unsigned long long deadline_ns)
    {
        struct timespec when = {(time_t)(deadline_ns / 1000000000ull), (long)(deadline_ns % 1000000000ull)};
        return pthread_cond_timedwait(cond, mutex, &when);
    }
    static inline void paravirt_init_cond(pthread_cond_t *cond)
    {
        pthread_condattr_t attributes;
        pthread_condattr_init(&attributes);
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        pthread_cond_init(cond, &attributes);
        pthread_condattr_destroy(&attributes);
    }
    /* Recursive, because Domain 0's step takes the lock that the machine's own thread already holds. */
    static inline void paravirt_init_lock(pthread_mutex_t *mutex)
    {
        pthread_mutexattr_t attributes;
        pthread_mutexattr_init(&attributes);
        pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
        pthread_mutex_init(mutex, &attributes);
        pthread_mutexattr_destroy(&attributes);
    }
    /* Another physical CPU has the lock for a microsecond or so: sleeping and waking would take longer. */
    static inline void paravirt_lock_soon(pthread_mutex_t *mutex)
    {
        int i;
        for (i = 0; i < 100; i++) {
            if (pthread_mutex_trylock(mutex) == 0)
                return;
            __builtin_ia32_pause();
        }
        pthread_mutex_lock(mutex);
    }
    """
    i64 add_atomically "__sync_add_and_fetch" (i64* word, i64 by) noexcept nogil
    void lock_soon "paravirt_lock_soon" (pthread_mutex_t* mutex) noexcept nogil
    void init_lock "paravirt_init_lock" (pthread_mutex_t* mutex) noexcept nogil
    int cond_wait_until "paravirt_cond_wait_until" (pthread_cond_t* cond, pthread_mutex_t* mutex,
                                                    u64 deadline_ns) noexcept nogil
    void init_cond "paravirt_init_cond" (pthread_cond_t* cond) noexcept nogil

cdef int on_exit(void* owner, Cpu* cpu, const CpuExit* exit) noexcept nogil
cdef bint may_go_on(Pcpu* pcpu, Vcpu* v) noexcept nogil
cdef void set_alarm(Pcpu* pcpu, Vcpu* v) noexcept nogil
cdef void advance_virtual_time(Host* host, Vcpu* v) noexcept nogil
cdef void time_passed(Pcpu* pcpu, Vcpu* v) noexcept nogil
cdef void carry_out(Pcpu* pcpu, Vcpu* v, const CpuExit* exit) noexcept nogil
cdef void run_errand(Pcpu* pcpu, Vcpu* v) noexcept nogil
cdef void do_rdtsc(Host* host, Vcpu* v, bint with_aux) noexcept nogil
cdef bint wait_for_work(Pcpu* pcpu) noexcept nogil
cdef void enter_guest(Pcpu* pcpu, Vcpu* v) noexcept nogil
cdef void run_pcpu(Pcpu* pcpu) noexcept nogil
