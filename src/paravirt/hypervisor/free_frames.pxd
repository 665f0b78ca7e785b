from paravirt.hypervisor.records cimport Host, u8, u32, u64

cdef extern from *:
    int lowest_bit "__builtin_ctzll"(unsigned long long value) noexcept nogil

cdef bint open_free_map(Host* host) noexcept nogil
cdef void note_free(Host* host, u64 mfn) noexcept nogil
cdef void note_taken(Host* host, u64 mfn) noexcept nogil
cdef bint take_clean(Host* host, u64 mfn) noexcept nogil
cdef void note_clean(Host* host, u64 mfn) noexcept nogil
cdef bint is_used(Host* host, u64 mfn) noexcept nogil
cdef u64 find_used(Host* host, u64 mfn, u64 end) noexcept nogil
cdef u64 whole_extents(u64 free, u32 order) noexcept nogil
cdef u64 find_small(Host* host, u32 order, u64 end) noexcept nogil
cdef u64 find_large(Host* host, u32 order, u64 end) noexcept nogil
cdef u64 find_extent(Host* host, u32 order, u64 end) noexcept nogil
