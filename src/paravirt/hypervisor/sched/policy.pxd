# The scheduler protocol: what the mechanism (scheduling.py) asks of a policy.
#
# A policy decides only who runs where and for how long.  Runstates, timers, kicks and the guests' view are the
# mechanism's.  All verbs are called under the machine lock; times are system time in nanoseconds.
from paravirt.hypervisor.records cimport Host, Pcpu, Vcpu, u64

ctypedef struct SchedPolicy:
    const char* name
    # The machine has its physical CPUs and no domain yet; or it ends.
    void (*init)(Host* host) noexcept nogil
    void (*deinit)(Host* host) noexcept nogil
    # A vcpu comes into being (offline), or goes for good.
    void (*insert)(Vcpu* v) noexcept nogil
    void (*remove)(Vcpu* v) noexcept nogil
    # Where the vcpu shall live.  All vcpus of a domain get one answer where engines need that.
    Pcpu* (*pick_cpu)(Vcpu* v) noexcept nogil
    # The vcpu became runnable, or has something urgent to do.  True: it should run now, instead of what runs.
    bint (*wake)(Vcpu* v, u64 at) noexcept nogil
    # It stopped being runnable.
    void (*sleep)(Vcpu* v, u64 at) noexcept nogil
    # It offers the rest of its time to others.
    void (*yield_cpu)(Vcpu* v) noexcept nogil
    # Who runs next: sets p.slice_end (0: no end).  NULL: idle.  p.current is who ran last, or NULL;
    # p.need_resched tells that its slice is over early.
    Vcpu* (*do_schedule)(Pcpu* p, u64 at) noexcept nogil
    # Time passed on a busy physical CPU: accounting.
    void (*tick)(Pcpu* p, u64 at) noexcept nogil
