# The scheduler protocol: what the mechanism (scheduling.py) asks of a policy.
#
# A policy schedules units.  Where an engine can run the vcpus of one domain at the same time each of these is a unit;
# elsewhere a unit is a domain, and its vcpus take turns inside it (rotate.py).  A policy decides only which unit runs
# where and for how long: runstates, timers, kicks, turns and the guests' view are the mechanism's.  All verbs are called
# under the machine lock; times are system time, and amounts of time are nanoseconds.
from paravirt.hypervisor.records cimport Domain, Host, Pcpu, Vcpu, i64, u8, u32, u64

cdef enum CreditPriority:
    BOOST = 0            # it woke just now
    UNDER = 1            # it has credit
    OVER = 2             # it has used more than it earned

ctypedef struct CreditState:
    i64 credit           # ns of processor time
    u8 priority
    u8 parked            # over its cap: it waits for credit
    u8 active            # it earns, and is one of pool.active
    u32 place            # among these
    u8 settled           # in accounting: its share is known
    u64 fair             # its share of the last period

ctypedef struct SedfState:
    u64 deadline         # end of its period; 0: it has none yet
    u64 left             # of its slice in this period
    u64 period           # as they are now: shorter ones for a while after it woke, if it set a latency
    u64 slice
    u64 extra            # time beyond its slices, divided by its weight

ctypedef struct BvtState:
    i64 avt              # actual virtual time: ns run, times its advance
    u8 warped
    u64 warp_used        # ns that it ran warped since it was warped
    u64 unwarped_until

# The parameters of all policies, as XEN_DOMCTL_scheduler_op has them.
ctypedef struct SchedParams:
    u32 weight           # credit, sedf
    u32 cap              # credit: per cent of one physical CPU; 0: none
    u64 period           # sedf
    u64 slice
    u64 latency
    u32 extratime
    u32 mcuadv           # bvt: advance of virtual time for each unit of time run
    u32 warpback
    u64 warpvalue        # in the same unit of time
    u64 warpl
    u64 warpu

ctypedef struct Unit:
    Domain* domain
    Cpupool* pool
    Pcpu* home
    u64 affinity         # a bit for each physical CPU that it may run on, of those that its pool has
    u64 preferred        # a bit for each one where it would rather run; 0: no matter
    u64 moved            # when it last came to another physical CPU
    u64 waits_since      # it could run, and does not, since then; 0: it runs, or cannot
    u32 nr_vcpus         # in being
    u8 awake             # some vcpu of it can run
    u32 place            # in the list of those that are awake
    u8 yielded           # it lets the others go first, once
    u8 turn_over         # another vcpu of it goes first
    u64 turn_end         # of the vcpu that has its turn; 0: no end
    Vcpu* last           # the vcpu that had the last turn
    u64 order            # of waiting: the lowest waits longest
    u64 run_ns           # for how long it has run
    SchedParams params
    CreditState credit
    SedfState sedf
    BvtState bvt

ctypedef struct PcpuSched:
    Cpupool* pool        # NULL: it is free
    Unit* running
    u64 since            # up to when its running unit was charged
    u64 started          # when it began to run the unit
    u64 turn_end         # of the unit, as the policy has it; 0: no end
    i64 virtual_time     # bvt, and sedf's extra time: the least of those that can run; it never goes back
    Unit* assigned       # null: the one unit that runs here

# Physical CPUs that share a policy, and the domains that live there.
ctypedef struct Cpupool:
    Host* host
    u32 id
    u64 cpus             # a bit for each of its physical CPUs; one that still has to let its unit go is not among them
    u32 nr_cpus
    SchedPolicy* policy
    Unit** units         # by domain number
    u32 count
    u32 capacity
    Unit** awake         # those that are, in no order: choices do not walk past all that sleep
    u32 nr_awake
    Unit** active        # credit: those that earn, in no order
    u32 nr_active
    u64 order            # the last one given out
    u64 tslice           # credit
    u64 ratelimit
    u64 next_account
    u64 ctx_allow        # bvt
    Cpupool* next        # the one with the next higher number

# What scheduling keeps for a machine.
ctypedef struct HostSched:
    Cpupool* pools       # by number; the first, Pool-0, is there as long as the machine
    u32 nr_pools
    PcpuSched cpus[64]   # MAX_PCPUS

ctypedef struct SchedPolicy:
    const char* name
    u8 balances          # do_schedule of an idle physical CPU looks for units that wait elsewhere
    # A unit comes into the pool, asleep, with its home and default parameters set; or goes, for good or to another one.
    void (*insert)(Unit* u, u64 at) noexcept nogil
    void (*remove)(Unit* u) noexcept nogil
    # Where it shall live, of the physical CPUs that it may run on.
    Pcpu* (*pick_cpu)(Unit* u) noexcept nogil
    # It can run again.  True: it should run now, instead of what runs.
    bint (*wake)(Unit* u, u64 at) noexcept nogil
    # It cannot run any more.
    void (*sleep)(Unit* u, u64 at) noexcept nogil
    # It ran for a while, up to `at`.
    void (*charge)(Unit* u, u64 ran, u64 at) noexcept nogil
    # Time passed: accounting.
    void (*tick)(Cpupool* pool, u64 at) noexcept nogil
    # Which unit runs next: sets p.slice_end (0: no end).  NULL: idle.
    Unit* (*do_schedule)(Pcpu* p, u64 at) noexcept nogil
    # When an idle physical CPU has to ask again though nobody woke; all ones: never.
    u64 (*deadline)(Pcpu* p, u64 at) noexcept nogil
    # It lives on another physical CPU of its pool from now on (u.home); it does not run.
    void (*moved)(Unit* u, Pcpu* old, u64 at) noexcept nogil
    # Its parameters were changed.
    void (*adjusted)(Unit* u, u64 at) noexcept nogil

ctypedef Unit* UnitPtr
ctypedef Unit** UnitPtrPtr
ctypedef Unit*** UnitPtrPtrPtr
ctypedef Cpupool* CpupoolPtr
ctypedef HostSched* HostSchedPtr
ctypedef PcpuSched* PcpuSchedPtr
ctypedef SchedPolicy* SchedPolicyPtr
