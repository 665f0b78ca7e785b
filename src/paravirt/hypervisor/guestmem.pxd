from paravirt.hypervisor.records cimport Host, Vcpu, u8, u64, i64

cdef u8* frame_ptr(Host* host, u64 mfn) noexcept nogil
cdef u64 read_pte(Host* host, u64 table_mfn, u64 index) noexcept nogil
cdef bint is_canonical(u64 address) noexcept nogil
cdef bint is_guest_address(u64 va) noexcept nogil
cdef bint in_guest_range(u64 va, u64 size) noexcept nogil
cdef u64 table_of(Vcpu* v) noexcept nogil
cdef u64* find_in_table(Host* host, u64 table, u64 va, u64* l1_mfn, u64* flags) noexcept nogil
cdef u8* translate_by(Host* host, u64 table, u64 va, bint write) noexcept nogil
cdef i64 copy_by_table(Host* host, u64 table, u64 va, const void* src, u64 size) noexcept nogil
cdef u64* find_l1e(Vcpu* v, u64 va, u64* l1_mfn, u64* flags) noexcept nogil
cdef u8* translate(Vcpu* v, u64 va, bint write) noexcept nogil
cdef i64 copy_from_guest(Vcpu* v, void* dst, u64 va, u64 size) noexcept nogil
cdef i64 copy_to_guest(Vcpu* v, u64 va, const void* src, u64 size) noexcept nogil
cdef i64 copy_to_kernel(Vcpu* v, u64 va, const void* src, u64 size) noexcept nogil
cdef u64 fetch_code(Vcpu* v, u8* dst, u64 va, u64 size) noexcept nogil
