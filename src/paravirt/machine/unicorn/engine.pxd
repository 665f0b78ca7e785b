from paravirt.machine.cpu cimport CpuOps, CpuPtr, u32

cdef extern from "paravirt/machine/unicorn/shim.h":
    ctypedef struct UnicornEngineC "struct unicorn_engine":
        pass
    const CpuOps unicorn_ops
    UnicornEngineC* unicorn_engine_open(const char* library, void* memory, size_t size, int count_blocks,
                                        u32 code_buffer_bytes, char* error, size_t error_size) nogil
    void unicorn_engine_close(UnicornEngineC* engine) nogil

ctypedef UnicornEngineC* UnicornEnginePtr

cdef class UnicornEngine:
    cdef UnicornEngineC* engine
    cdef readonly str name
    cdef readonly str version
    cdef readonly object capabilities
    cdef readonly dict native_leaves
