from paravirt.machine.cpu cimport Cpu, CpuExit
from paravirt.hypervisor.records cimport Callback, Domain, Host, Pcpu, TrapEntry, Vcpu, u8, u16, u32, u64, i64

cdef void toggle_mode(Vcpu* v) noexcept nogil
cdef bint push_frame(Vcpu* v, u64* words, u32 count) noexcept nogil
cdef bint finish_frame(Vcpu* v, u64* words, u32 n) noexcept nogil
cdef void enter_handler(Vcpu* v, u64 address, bint mask_events) noexcept nogil
cdef void enter_kernel(Vcpu* v, u64 address, bint mask_events, bint has_error, u32 error) noexcept nogil
cdef void inject_exception(Vcpu* v, u32 vector, u32 error, u64 cr2) noexcept nogil
cdef void inject_gp(Vcpu* v, u32 error) noexcept nogil
cdef void inject_failsafe(Vcpu* v) noexcept nogil
cdef void domain_crash(Domain* d, const char* reason, u64 detail) noexcept nogil
cdef bint deliver_events(Vcpu* v) noexcept nogil
cdef void software_interrupt(Host* host, Vcpu* v, u32 vector) noexcept nogil
cdef void single_step(Vcpu* v, u64 trap_flag) noexcept nogil
cdef void general_protection(Host* host, Vcpu* v, u32 error) noexcept nogil
cdef void page_fault(Host* host, Vcpu* v, u32 error, u64 address) noexcept nogil
cdef void exception(Host* host, Vcpu* v, u32 vector, u32 error, u64 address) noexcept nogil
cdef void system_call(Host* host, Vcpu* v) noexcept nogil
cdef void system_enter(Host* host, Vcpu* v) noexcept nogil
cdef i64 iret(Vcpu* v) noexcept nogil
cdef void set_flat(Vcpu* v, int seg, u16 selector, u32 flags) noexcept nogil
