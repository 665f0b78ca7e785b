# The hypervisor's records: one C structure for each thing that Xen knows.
#
# The budgeted paths (traps, page tables, events, timers) work on these without the interpreter's lock; Python
# sees them through the classes in views/.  Everything here is guarded by the machine lock (host.lock).
from paravirt.machine.cpu cimport Cpu, CpuOps, u8, u16, u32, u64, i16, i32, i64

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    int pthread_mutex_lock(pthread_mutex_t* mutex)
    int pthread_mutex_trylock(pthread_mutex_t* mutex)
    int pthread_mutex_unlock(pthread_mutex_t* mutex)
    int pthread_cond_signal(pthread_cond_t* cond)
    int pthread_cond_wait(pthread_cond_t* cond, pthread_mutex_t* mutex)

# --- frames ---------------------------------------------------------------------------------------------------

cdef enum FrameType:
    FRAME_NONE = 0       # no type: the frame may become anything
    FRAME_L1 = 1         # page tables: type n is an Ln table
    FRAME_L2 = 2
    FRAME_L3 = 3
    FRAME_L4 = 4
    FRAME_SEGDESC = 5    # holds descriptors of a GDT or LDT
    FRAME_WRITABLE = 7   # mapped writable somewhere

cdef enum FrameFlag:
    FRAME_ALLOCATED = 1  # the owner's allocation itself holds one reference
    FRAME_PINNED = 2     # the guest pinned it: one reference and one type reference
    FRAME_VALIDATED = 4  # entries of its present type were checked and hold their references
    FRAME_XEN = 8        # the hypervisor's own (machine-to-phys table, shared info): mappable as it says
    FRAME_READONLY = 16  # with FRAME_XEN: a guest may map it read-only only
    FRAME_PARTIAL = 32   # a page table part way to being validated, or released: holds a reference and a use itself
    FRAME_PARTIAL_SET = 64  # its entry `nr_validated` holds a reference to a table that is part way itself
    FRAME_KEPT = 128     # with FRAME_XEN: the hypervisor goes on using it when its last reference goes

ctypedef struct Frame:
    u32 refs             # references of every kind
    u32 type_refs        # of these, uses under `type`
    u8 type
    u8 flags
    u16 owner            # domid, DOMID_XEN, or DOMID_INVALID when free
    u16 nr_validated     # a page table part way: the entries below hold what they refer to
    i16 linear           # entries that name tables of its own level; below 0: entries of others that name it
    u64 tlb_stamp        # flush clock when it stopped being mapped writable

# --- event channels -------------------------------------------------------------------------------------------

cdef enum PortState:
    PORT_FREE = 0
    PORT_RESERVED = 1
    PORT_UNBOUND = 2
    PORT_INTERDOMAIN = 3
    PORT_PIRQ = 4
    PORT_VIRQ = 5
    PORT_IPI = 6

# Native code of Domain 0's behind a port of its own, which the thread whose guest sends an event there runs itself.
ctypedef struct PortServer:
    # Called without the machine lock; gives one use back.  What is to be done then: ServerAnswer.
    u32 (*serve)(PortServer* server) noexcept nogil
    i64 uses             # the port is one; changed by atomic operations

cdef enum ServerAnswer:
    SERVER_ANSWERS = 1   # the other end gets an event
    SERVER_LEAVES = 2    # something is left to Domain 0's thread

ctypedef struct Port:
    u8 state
    u8 priority          # FIFO: 0 (highest) to 15
    u8 pending           # posted for a domain that is not quiescent, or a service's port
    u8 early          # FIFO: arrived before the guest gave a page for the port
    u16 remote_domid     # UNBOUND: who may bind; INTERDOMAIN: the peer
    u16 virq
    u32 remote_port
    u32 notify_vcpu
    u32 last_vcpu        # FIFO: where it was queued last
    u32 last_priority
    PortServer* server   # Domain 0's, or NULL

# --- page tables ----------------------------------------------------------------------------------------------

# A table that nothing refers to any more, and that is still to be released, bit by bit.  It holds a reference, and
# unless `partial` a use.
ctypedef struct OldTable:
    u64 mfn              # 0: none
    u64 above            # the table whose entry referred to it, when both may be of one level; 0: none
    u8 partial           # the frame itself is part way, and holds the use

# --- refusals ---------------------------------------------------------------------------------------------------

cdef enum RefusedKind:
    REFUSED_NOTHING = 0  # no frame was noted
    # 1 to 5: an entry of a table of that FrameType
    REFUSED_FRAME = 8
    NO_HYPERCALL = 64    # in place of a number: a plain write to a page table

cdef enum RefusalAnswer:
    ANSWER_ERROR = 1     # a negative error number
    ANSWER_STATUS = 2    # the status of one request about grants; the hypercall itself got another answer
    ANSWER_COUNT = 3     # how many of a list's items were done before it

# A request that was refused, as things were then (refusals.py).
ctypedef struct Refusal:
    u32 kind             # what of `at` to `table` counts
    u32 command          # mmu_update's or mmuext_op's, plus one; 0: the first argument has it, if there is one
    u32 hypercall        # its number, or NO_HYPERCALL
    u32 how              # RefusalAnswer; 0: nothing was refused yet
    i64 answer           # what the guest got
    u64 time             # system time, ns
    u64 rip              # behind the hypercall, or of the instruction that writes
    u64 args[4]
    u64 at               # machine address of the entry
    u64 entry
    u64 mfn              # the frame itself, or the one that the entry names
    Frame frame          # that frame, if it exists
    Frame table          # the one where the entry is

ctypedef struct FifoQueue:
    u32 head             # last value written to the control block, for clearing races
    u32 tail
    u8 priority

# --- virtual CPUs -----------------------------------------------------------------------------------------------

ctypedef struct TrapEntry:
    u64 address          # 0: no handler
    u16 cs
    u8 dpl
    u8 mask_events       # TI_IF: enter with events masked

ctypedef struct Callback:
    u64 address
    u8 mask_events

cdef enum RunState:
    RUNSTATE_RUNNING = 0
    RUNSTATE_RUNNABLE = 1
    RUNSTATE_BLOCKED = 2
    RUNSTATE_OFFLINE = 3

cdef enum PauseFlag:
    VPF_BLOCKED = 1      # in SCHEDOP_block
    VPF_DOWN = 2         # never initialised, or VCPUOP_down
    VPF_POLL = 4         # in SCHEDOP_poll

cdef enum FaultService:
    SERVES_NOTHING = 0
    SERVES_NOW = 1       # its kernel was entered for a page fault of a process, and has only updated entries since
    SERVES_BEFORE = 2    # that was so until the exit that is being looked at

ctypedef struct Vcpu:
    Cpu cpu              # first: engines see this part only
    Domain* domain
    Pcpu* pcpu           # where it runs or last ran
    u32 id
    u32 pause_flags
    u8 initialised
    u8 on_cpu            # its state is in an engine now
    u8 nmi_pending
    u8 nmi_masked
    u8 in_multicall
    u8 preempted         # the hypercall in progress is to be made again, for its remainder
    u8 guest_ts          # what the guest asked by fpu_taskswitch
    u8 iopl
    # memory management
    u64 kernel_table     # mfn of the L4 in use by the guest's kernel
    u64 user_table       # mfn of the L4 for its processes, 0: none
    OldTable old         # left over by a preempted hypercall
    u64 kernel_ss
    u64 kernel_sp
    u64 gdt_frames[16]
    u32 gdt_entries
    u32 ldt_entries
    u64 ldt_base         # guest virtual address
    u64 ldt_frames[16]   # mfns of its pages that were used so far: each holds a reference and its type
    u64 gs_base_kernel   # the shadow GS base: the other one than cpu.seg[SEG_GS].base
    u64 cr4
    u64 xcr0             # which state its kernel keeps, where host.xcr0_states lets it
    u64 iobmp            # PHYSDEVOP_set_iobitmap
    u32 iobmp_limit
    u64 mcg_status       # machine-check registers (machinecheck.py)
    u64 mc_ctl2[2]
    # traps
    TrapEntry traps[256]
    Callback event_callback
    Callback failsafe_callback
    Callback syscall_callback
    Callback syscall32_callback
    Callback sysenter_callback
    # vcpu_info: where it is now (in shared info, or where the guest registered it); host address
    u8* info
    u64 info_mfn         # frame holding a registered one (a reference is held), 0: in shared info
    # time
    u64 time_version
    u64 time_area        # VCPUOP_register_vcpu_time_memory_area: guest virtual address, 0: none
    u64 runstate_area
    u64 periodic_period  # ns, 0: stopped
    u64 periodic_last
    u64 singleshot       # deadline in system time, ns; 0: none
    u8 runstate
    u64 runstate_since
    u64 runstate_time[4]
    # events
    u32 virq_port[24]
    u64 fifo_control     # host address of the control block, 0: none
    u64 fifo_control_mfn
    FifoQueue fifo_queue[16]
    u64 last_timer       # the deadline of the singleshot timer that went off last
    u64 expected_timer   # what the guest will set it to next, by the last two; 0: that is not known (timekeeping.py)
    u64 poll_deadline    # 0: none
    u64 timer_due        # the earlier of singleshot and poll_deadline, by which it stands in p.timers; 0: in none
    Vcpu* timer_child    # the first of those below it in that heap: timers.py
    Vcpu* timer_next     # the next one beside it
    Vcpu* timer_before   # the one before, or above if it is the first; NULL: it is the root
    u32 hypercall        # the number in progress
    u64 blocks_seen      # deterministic mode: cpu.blocks up to which time was advanced
    u32 poll_port        # a single polled port, for the common case
    u32 pauses           # pause instructions since it last yielded
    void* sched          # what the scheduler keeps for it: sched/policy.pxd, Unit
    u8 serves_fault      # SERVES_...: what an engine may answer by itself depends on it (deferred.py)
    u8 ran_processes     # guest code other than its kernel's
    u8 left_process      # its process was left in this exit: cpu.process is what the kernel was told of it
    u32 good_updates     # updates of single page-table entries since the last that was refused (deferred.py)
    Refusal refused      # the last one

ctypedef struct Domain:
    Host* host
    u16 domid
    u8 is_service        # Domain 0: Python services instead of guest code
    u8 dying
    u8 is_shut_down
    u8 shutdown_code
    u8 controller_pauses  # of the toolstack's making, among ``paused``
    u8 crashed
    u8 is_privileged
    u8 fifo              # the FIFO ABI is in use
    u32 paused           # pauses that have not been taken back
    u32 nr_vcpus
    Vcpu** vcpus
    u64 tot_pages
    u64 max_pages
    u64 shared_info_mfn
    u8* shared_info      # host address
    u64 arch_vm_assist
    u64 nr_pt_updates
    # event ports, port 0 is never valid
    Port* ports
    u32 nr_ports         # allocated
    u32 max_ports        # of the ABI in use
    u32 next_evtchn      # where a reset in progress goes on, 0: there is none
    u64* fifo_array      # mfns of the event array's pages
    u32 fifo_array_pages
    u32 posted           # some port has `pending` posted
    # grants
    u32 grant_version
    i64 time_offset      # wall clock offset, seconds
    u64 crash_reason     # host address of a static C string
    u64 crash_detail
    u64 watchdog[2]      # when each is due, in system time, ns; 0: it does not run
    u8 watchdogs_in_use  # a bit for each
    u8 watched           # it is one of host.watched
    Domain* next_watched
    OldTable old         # of the frames that it is being rid of, at its end
    void* sched          # its first vcpu's Unit
    # engines' translations
    u64 visited          # a bit for each physical CPU whose engine may have code of its, translated when it ran there
    u64 first_mfn        # its frames are among [first_mfn, end_mfn)
    u64 end_mfn
    u8 shared_out        # another domain mapped a frame of its: engines of others may have translations of its frames

# --- the machine ------------------------------------------------------------------------------------------------

ctypedef struct Stats:
    u64 hypercall_count[64]
    u64 hypercall_ns[64]   # TSC ticks until reported
    u64 trap_count[32]
    u64 trap_ns[32]
    u64 syscall_count
    u64 ptwr_count
    u64 exit_count
    u64 flush_count
    u64 world_switches
    u64 engine_enters
    u64 engine_ns          # guest code and handlers
    u64 handler_ns         # handlers alone
    u64 idle_ns
    u64 exit_kinds[16]
    u64 python_hypercalls
    u64 most_work          # of one stretch with the machine lock held, in looks at page-table entries
    u64 most_handler_ns    # of one exit
    u64 errand_ns          # what physical CPUs spent on Domain 0's work

# A physical CPU: a thread that runs vcpus, one at a time, on an engine of its own.  `current` is the vcpu whose state
# and translations the engine has, whether it runs or not; a vcpu is the current one of at most one physical CPU.
ctypedef struct Pcpu:
    Host* host
    u32 id               # below MAX_PCPUS
    CpuOps* ops
    void* engine
    Vcpu* current
    u64 flush_clock      # host.flush_clock at its last full flush
    u64 slice_end
    u8 idle
    u8 need_resched
    u32 errand           # Domain 0's port whose server is to run before the guest goes on; 0: none
    pthread_cond_t wake
    Vcpu* timers         # the root of a heap of its vcpus that have timers set: timers.py

ctypedef i64 (*hypercall_fn)(Host* host, Vcpu* vcpu, u64* args) noexcept nogil

cdef enum HostLimit:
    MAX_PCPUS = 64       # they are bits of a word

ctypedef struct Host:
    pthread_mutex_t lock
    void* sched          # what the scheduler keeps for the machine: sched/policy.pxd, HostSched
    u8* memory           # host address of machine frame 0
    u64 nr_frames
    Frame* frames
    u64* m2p             # host address of the machine-to-phys table
    u64 m2p_l3_mfn       # the table that shows it in every L4
    u64 m2p_index        # in which of slots 256 to 271: the first, but on an engine whose guests cannot use that
    u64 reserved_l4[16]  # what the engine needs in slots 256 to 271 of every L4
    u64 kernel_l4[16]    # and what it may make of that in one that only a guest's kernel runs on
    Domain** domains     # by domid
    u32 max_domains
    Domain* watched      # those that have used a watchdog: watchdog.py
    u64 watchdog_due     # when the first of theirs is; 0: none runs
    Pcpu** pcpus
    u32 nr_pcpus
    u64 flush_clock
    u64 free_frames
    u64* free_map        # a bit for each frame: free_frames.py
    u64 alloc_hint       # below it no frame is free
    u64* clean_map       # and another: those that are as the host gave them
    u64 work             # done in the hypercall in progress, in page-table entries
    Refusal refused      # what was noted in it so far
    OldTable* old        # where what is left over goes; never NULL in operations on tables
    OldTable spare       # for operations that nobody preempts
    u32 whole            # such an operation is in progress
    hypercall_fn hypercalls[64]
    void* owner          # the Python Host (borrowed)
    # clock
    u8 virtual_clock
    u8 stopping
    u8 deterministic
    u8 trace_on
    u64 boot_ns          # CLOCK_MONOTONIC at boot: system time is measured from it
    u64 boot_tsc
    u64 measured_ns      # over how long tsc_mul was measured
    u64 virtual_ns
    u64 ns_per_block     # deterministic mode: the time that a translation block of guest code takes
    u32 tsc_mul          # 32.32 fixed point: ns = (ticks << shift) * mul >> 32
    i32 tsc_shift
    u64 xcr0_states      # of XCR0, what a guest may switch on; 0: it has no XSAVE
    i64 wall_offset_ns   # wall clock at system time 0, ns since 1970
    int service_fd       # eventfd written when Domain 0 has events
    u8 service_pending
    void (*service_step)(Host* host) noexcept nogil   # deterministic mode: run Domain 0 now
    u8* trace_buffer
    u64 trace_count
    u64 trace_room
    Stats stats

ctypedef Frame* FramePtr
ctypedef Refusal* RefusalPtr
ctypedef OldTable* OldTablePtr
ctypedef Vcpu* VcpuPtr
ctypedef Domain* DomainPtr
ctypedef Pcpu* PcpuPtr
ctypedef Host* HostPtr
ctypedef Port* PortPtr
ctypedef PortServer* PortServerPtr
ctypedef TrapEntry* TrapEntryPtr
ctypedef Callback* CallbackPtr
