from paravirt.machine.cpu cimport CpuOps, CpuPtr, u32, u64

cdef extern from "paravirt/machine/unicorn/shim.h":
    ctypedef struct UnicornEngineC "struct unicorn_engine":
        pass
    const CpuOps unicorn_ops
    UnicornEngineC* unicorn_engine_open(const char* library, void* memory, size_t size, int count_blocks,
                                        u32 code_buffer_bytes, char* error, size_t error_size) nogil
    void unicorn_engine_close(UnicornEngineC* engine) nogil
    ctypedef struct UnicornCounters "struct unicorn_counters":
        u64 blocks
        u64 translating_ns
        u64 whole_flushes
        u64 kept_blocks
        u64 kept_bytes
        u64 buffer_bytes
        u64 tlb_flushes
        u64 page_flushes
    void unicorn_engine_counters(const UnicornEngineC* engine, UnicornCounters* counters) nogil

ctypedef UnicornEngineC* UnicornEnginePtr

cdef class UnicornEngine:
    cdef UnicornEngineC* engine
    cdef readonly str name
    cdef readonly str version
    cdef readonly object capabilities
    cdef readonly dict native_leaves
