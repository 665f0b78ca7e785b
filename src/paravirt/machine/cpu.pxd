# The Cpu protocol (cpu.h) for compiled modules.
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

ctypedef uint64_t u64
ctypedef uint32_t u32
ctypedef uint16_t u16
ctypedef uint8_t u8
ctypedef int64_t i64
ctypedef int32_t i32
ctypedef int16_t i16
ctypedef u64* U64Ptr
ctypedef u32* U32Ptr
ctypedef u16* U16Ptr
ctypedef u8* BytePtr
ctypedef void* VoidPtr

cdef extern from "paravirt/machine/cpu.h":
    const int GPR_RAX, GPR_RCX, GPR_RDX, GPR_RBX, GPR_RSP, GPR_RBP, GPR_RSI, GPR_RDI
    const int GPR_R8, GPR_R9, GPR_R10, GPR_R11, GPR_R12, GPR_R13, GPR_R14, GPR_R15
    const int SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS
    const int EXIT_EXCEPTION, EXIT_SOFTINT, EXIT_SYSCALL, EXIT_SYSENTER, EXIT_CPUID, EXIT_RDTSC
    const int EXIT_KICKED, EXIT_PAUSE, EXIT_BUDGET, EXIT_ENGINE
    const int CPU_RESUME, CPU_LEAVE
    const int SHORTCUT_ABSENT_VCPUS, SHORTCUT_UPDATES, SHORTCUT_TIMER, SHORTCUT_RETURN
    const int FLUSH_KERNEL, FLUSH_USER, FLUSH_ALL

    ctypedef struct CpuSeg "struct cpu_seg":
        u16 selector
        u32 flags
        u32 limit
        u64 base

    ctypedef struct CpuExit "struct cpu_exit":
        int kind
        u32 vector
        u32 error_code
        u64 address
        const char* why

    ctypedef struct CpuProcess "struct cpu_process":
        u64 rip
        u64 rflags
        u64 rsp
        CpuSeg cs
        CpuSeg ss

    ctypedef struct Cpu "struct cpu":
        u64 gpr[16]
        u64 rip
        u64 rflags
        CpuSeg seg[6]
        u64 kernel_cr3
        u64 user_cr3
        u8 user
        u8 ts
        u8 segs_dirty
        u8 shortcuts
        u32 tsc_aux
        u64 dr[8]
        u64 blocks
        void* engine_state
        const void* space
        u32 number
        u32 nr_deferred
        const u64* deferred
        u64 timer_from
        u64 timer_set
        u8 has_shortcuts
        u8 returned
        u64 kernel_gs
        u64 vcpu_info
        CpuProcess process

    ctypedef int (*cpu_handler)(void* owner, Cpu* cpu, const CpuExit* exit) noexcept nogil

    ctypedef struct CpuOps "struct cpu_ops":
        const char* name
        u8 parallel
        int (*run)(void* engine, Cpu* cpu, cpu_handler handler, void* owner) noexcept nogil
        void (*kick)(void* engine) noexcept nogil
        void (*set_deadline)(void* engine, u64 deadline_ns) noexcept nogil
        void (*set_budget)(void* engine, u64 blocks) noexcept nogil
        bint (*store_pte)(void* engine, u64* pte, u64 old, u64 value) noexcept nogil
        void (*release_table)(void* engine, u64 mfn) noexcept nogil
        void (*defer_table)(void* engine, Cpu* cpu, u64 mfn) noexcept nogil
        void (*flush_tlb)(void* engine, int scope) noexcept nogil
        void (*flush_page)(void* engine, u64 address) noexcept nogil
        void (*commit)(void* engine) noexcept nogil
        void (*invalidate_code)(void* engine, u64 start, u64 end) noexcept nogil
        void* (*new_state)(void* engine, const Cpu* cpu) noexcept nogil
        void (*free_state)(void* engine, void* state) noexcept nogil
        void (*get_fxsave)(void* engine, Cpu* cpu, u8* image) noexcept nogil
        void (*set_fxsave)(void* engine, Cpu* cpu, const u8* image) noexcept nogil
        void (*unload)(void* engine) noexcept nogil
        void (*hold)(void* engine) noexcept nogil
        void (*unhold)(void* engine) noexcept nogil
        void (*reserved_entries)(void* engine, int kernel, u64* entries) noexcept nogil

ctypedef Cpu* CpuPtr
ctypedef CpuOps* CpuOpsPtr
ctypedef CpuSeg* CpuSegPtr
ctypedef const CpuExit* CpuExitPtr
ctypedef const u8* ConstBytePtr
ctypedef const Cpu* ConstCpuPtr
