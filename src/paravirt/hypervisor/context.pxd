# Starting a vcpu from the context that VCPUOP_initialise or the domain builder gives it.
from paravirt.hypervisor.records cimport Host, Vcpu, u8, u16, u32, u64, i64

# The public layouts (arch-x86/xen.h, 64 bit).
ctypedef struct ContextRegs:
    u64 r15
    u64 r14
    u64 r13
    u64 r12
    u64 rbp
    u64 rbx
    u64 r11
    u64 r10
    u64 r9
    u64 r8
    u64 rax
    u64 rcx
    u64 rdx
    u64 rsi
    u64 rdi
    u32 error_code
    u32 entry_vector
    u64 rip
    u16 cs
    u16 pad0
    u8 saved_upcall_mask
    u8 pad1[3]
    u64 rflags
    u64 rsp
    u64 ss
    u64 es
    u64 ds
    u64 fs
    u64 gs

ctypedef struct ContextTrap:
    u8 vector
    u8 flags
    u16 cs
    u32 pad
    u64 address

ctypedef struct Context:
    u8 fpu[512]
    u64 flags
    ContextRegs regs
    ContextTrap traps[256]
    u64 ldt_base
    u64 ldt_ents
    u64 gdt_frames[16]
    u64 gdt_ents
    u64 kernel_ss
    u64 kernel_sp
    u64 ctrlreg[8]
    u64 debugreg[8]
    u64 event_callback_eip
    u64 failsafe_callback_eip
    u64 syscall_callback_eip
    u64 vm_assist
    u64 fs_base
    u64 gs_base_kernel
    u64 gs_base_user

ctypedef Context* ContextPtr

cdef i64 check_context(Context* c) noexcept nogil
cdef bint same_tables(Vcpu* v, Context* c) noexcept nogil
cdef void load_registers(Vcpu* v, Context* c) noexcept nogil
cdef void load_callbacks(Vcpu* v, Context* c) noexcept nogil
cdef void load_debug_registers(Vcpu* v, Context* c) noexcept nogil
cdef void load_fpu(Vcpu* v, Context* c) noexcept nogil
cdef i64 leave_kernel_table(Host* host, Vcpu* v) noexcept nogil
cdef i64 take_page_tables(Host* host, Vcpu* v, u64 kernel, u64 user, bint with_user) noexcept nogil
cdef i64 take_tables(Host* host, Vcpu* v, Context* c) noexcept nogil
cdef void load_segments(Host* host, Vcpu* v, Context* c) noexcept nogil

# context: a Context of 5168 bytes in the hypervisor's own memory (it is read more than once).
cdef i64 set_vcpu_context(Host* host, Vcpu* v, const u8* context) noexcept nogil
