# Time: system time, the guest's TSC, time records, wall clock, runstates, per-vcpu timers.
from paravirt.hypervisor.records cimport Domain, Host, Pcpu, Vcpu, u8, u32, u64, i32

cdef extern from * nogil:
    ctypedef unsigned long long u128 "unsigned __int128"
    u32 atomic_load32 "__atomic_load_n"(u32* at, int order)
    void atomic_store32 "__atomic_store_n"(u32* at, u32 value, int order)
    void atomic_fence "__atomic_thread_fence"(int order)
    const int RELAXED "__ATOMIC_RELAXED"
    const int RELEASE "__ATOMIC_RELEASE"

# The public layouts of vcpu_time_info and vcpu_runstate_info.
ctypedef struct TimeRecord:
    u32 version
    u32 pad0
    u64 tsc_timestamp
    u64 system_time
    u32 tsc_to_system_mul
    signed char tsc_shift
    u8 flags
    u8 pad1[2]

ctypedef struct RunstateRecord:
    i32 state
    u32 pad
    u64 state_entry_time
    u64 time[4]

ctypedef TimeRecord* TimeRecordPtr
ctypedef RunstateRecord* RunstateRecordPtr

cdef u64 host_ns() noexcept nogil
cdef void sample(u64* ns, u64* tsc) noexcept nogil
cdef void set_scale(Host* host, u64 ns, u64 ticks) noexcept nogil
cdef void write_record(Vcpu* v, TimeRecord* record) noexcept nogil

cdef u64 now(Host* host) noexcept nogil
cdef u64 guest_tsc(Host* host) noexcept nogil
cdef u64 scale_delta(u64 delta, u32 mul, i32 shift) noexcept nogil
cdef void calibrate(Host* host) noexcept nogil
cdef bint time_record_stale(Vcpu* v, u64 at) noexcept nogil
cdef void update_time_record(Vcpu* v) noexcept nogil
cdef void update_wallclock(Domain* d) noexcept nogil

cdef void change_runstate(Vcpu* v, u8 new_state, u64 at) noexcept nogil
cdef void update_runstate_area(Vcpu* v) noexcept nogil
cdef void set_runstate(Vcpu* v, u8 new_state) noexcept nogil
cdef void get_runstate(Vcpu* v, RunstateRecord* record) noexcept nogil

cdef u64 signed_deadline(u64 at) noexcept nogil
cdef void init_vcpu_timers(Vcpu* v) noexcept nogil
cdef void run_periodic(Vcpu* v, u64 at) noexcept nogil
cdef void expect_timer(Vcpu* v, u64 at) noexcept nogil
cdef void timer_was_expected(Vcpu* v, u64 at) noexcept nogil
cdef void run_vcpu_timers(Vcpu* v, u64 at) noexcept nogil
cdef void run_timers(Pcpu* p) noexcept nogil
cdef u64 next_deadline(Vcpu* v) noexcept nogil
