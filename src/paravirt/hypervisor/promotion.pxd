from paravirt.hypervisor.records cimport Host, OldTable, u8, u16, u64, i64

cdef bint work_spent(Host* host) noexcept nogil
cdef void note_work(Host* host) noexcept nogil
cdef i64 validate_page(Host* host, u64 mfn, u8 type) noexcept nogil
cdef i64 promote_l1(Host* host, u64 mfn) noexcept nogil
cdef i64 promote_table(Host* host, u64 mfn, u8 level) noexcept nogil
cdef void stop_promotion(Host* host, u64 mfn, u64 index, bint partial_set) noexcept nogil
cdef void demote_l1(Host* host, u64 mfn) noexcept nogil
cdef i64 demote_table(Host* host, u64 mfn, u8 level) noexcept nogil
cdef i64 devalidate_page(Host* host, u64 mfn, u8 was_partial) noexcept nogil
cdef void stand_at(Host* host, u64 mfn, u64 index, bint partial_set) noexcept nogil
cdef i64 get_table_entry(Host* host, u64 table_mfn, u64 value, u8 level, u16 domid, bint partial_set, bint retain) noexcept nogil
cdef bint get_linear(Host* host, u64 table_mfn, u64 value, u8 level, u16 domid) noexcept nogil
cdef i64 put_table_entry(Host* host, u64 table_mfn, u64 value, bint partial_set) noexcept nogil
cdef void defer_table_entry(Host* host, u64 table_mfn, u64 value) noexcept nogil
cdef void leave_over(Host* host, u64 mfn, u64 above, bint partial) noexcept nogil
cdef i64 put_old_table(Host* host, OldTable* old) noexcept nogil
cdef void keep_as_pin(Host* host, u64 mfn) noexcept nogil
cdef void keep_old_as_pin(Host* host, OldTable* old) noexcept nogil
