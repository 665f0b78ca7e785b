from paravirt.hypervisor.records cimport Domain, Frame, Host, Pcpu, u8, u16, u64, i64

cdef bint get_page(Host* host, u64 mfn, u16 domid) noexcept nogil
cdef void put_page(Host* host, u64 mfn) noexcept nogil
cdef i64 take_page_type(Host* host, u64 mfn, u8 type) noexcept nogil
cdef i64 drop_page_type(Host* host, u64 mfn, bint partial_set, u64 above) noexcept nogil
cdef i64 get_page_and_type_part(Host* host, u64 mfn, u16 domid, u8 type, bint partial_set, bint retain) noexcept nogil
cdef i64 get_page_type(Host* host, u64 mfn, u8 type) noexcept nogil
cdef void put_page_type(Host* host, u64 mfn) noexcept nogil
cdef i64 get_page_and_type(Host* host, u64 mfn, u16 domid, u8 type) noexcept nogil
cdef void put_page_and_type(Host* host, u64 mfn) noexcept nogil
cdef u64 alloc_frame(Host* host, u16 domid) noexcept nogil
cdef void flush_stale(Host* host, u64 stamp) noexcept nogil
cdef void flush_pcpu(Pcpu* pcpu) noexcept nogil
cdef void flush_all(Host* host) noexcept nogil
cdef bint may_hold(Pcpu* pcpu, Domain* d) noexcept nogil
cdef void flush_domain(Domain* d) noexcept nogil
cdef void flush_page(Domain* d, u64 va) noexcept nogil
cdef Domain* owner_of(Host* host, u64 mfn) noexcept nogil
cdef bint may_map(Pcpu* pcpu, Domain* owner) noexcept nogil
cdef void share_out(Host* host, u64 mfn) noexcept nogil
cdef void flush_frame(Host* host, u64 mfn) noexcept nogil
cdef bint may_run_code(Pcpu* pcpu, Domain* owner) noexcept nogil
cdef void drop_code(Host* host, u64 start, u64 end) noexcept nogil
cdef void drop_code_everywhere(Host* host, u64 start, u64 end) noexcept nogil
cdef void arrive(Pcpu* pcpu, Domain* d) noexcept nogil
cdef void note_owner(Host* host, u64 mfn, u16 domid) noexcept nogil
cdef void release_table(Host* host, u64 mfn) noexcept nogil
cdef bint release_allocation(Host* host, u64 mfn, u16 domid) noexcept nogil
cdef u64 give_back(Host* host, u64 mfn, u64 end) noexcept nogil
cdef void claim(Host* host, u64 mfn, u16 domid) noexcept nogil
cdef void unshare_frame(Host* host, u64 mfn, u16 domid) noexcept nogil
cdef bint steal_frame(Host* host, u64 mfn, u16 domid) noexcept nogil
cdef void assign_frame(Host* host, u64 mfn, u16 domid) noexcept nogil
