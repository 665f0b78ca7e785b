from paravirt.hypervisor.records cimport Host, Pcpu, Vcpu, i64, u8, u32, u64

# Whether the engine answers hypercalls by itself: nothing below matters to one that does not.
cdef inline bint takes_shortcuts(Pcpu* p) noexcept nogil:
    return p.ops.defer_table != NULL

cdef bint may_put_off(Vcpu* v) noexcept nogil
cdef u8 allowed_shortcuts(Vcpu* v) noexcept nogil
cdef void take_timer(Vcpu* v) noexcept nogil
cdef bint may_return(Vcpu* v) noexcept nogil
cdef void take_return(Vcpu* v) noexcept nogil
cdef void begin_exit(Vcpu* v) noexcept nogil
cdef void note_update(Vcpu* v, u32 count, u64 table_mfn, i64 rc) noexcept nogil
cdef void carry_out_deferred(Host* host, Vcpu* v) noexcept nogil
cdef i64 update_now(Host* host, Vcpu* v, u64* request) noexcept nogil
