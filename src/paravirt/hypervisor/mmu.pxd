from paravirt.hypervisor.records cimport Domain, Host, Vcpu, u8, u16, u32, u64, i64

cdef i64 mod_entry(Vcpu* v, u64 table_mfn, u64 index, u64 value, u8 level, bint preserve_ad, u16 mapped_domid,
                   u64* expected) noexcept nogil
cdef void clear_reserved_slots(Host* host, u64 l4_mfn) noexcept nogil
cdef void show_machine_to_phys(Vcpu* v, u64 l4_mfn, bint shown) noexcept nogil
cdef i64 set_kernel_table(Vcpu* v, u64 mfn) noexcept nogil
cdef i64 set_user_table(Vcpu* v, u64 mfn) noexcept nogil
cdef bint write_fault(Host* host, Vcpu* v, u64 address) noexcept nogil
cdef u64 disallowed_flags(u8 level) noexcept nogil
cdef u64 adjust_entry(u64 value, u8 level) noexcept nogil
cdef bint is_guest_l4_slot(u64 index) noexcept nogil
cdef void put_entry(Vcpu* v, u64* pte, u64 value, bint preserve_ad) noexcept nogil
cdef bint store_expected(Host* host, Vcpu* v, u64 table_mfn, u64 index, u64 value, bint preserve_ad,
                         u64* expected) noexcept nogil
cdef void store(Host* host, Vcpu* v, u64 table_mfn, u64 index, u64 value, bint preserve_ad) noexcept nogil
cdef i64 get_l1_entry(Host* host, u64 value, u16 mapped_domid) noexcept nogil
cdef void put_l1_entry(Host* host, u64 value) noexcept nogil
cdef i64 put_base(Vcpu* v, u64 old) noexcept nogil
cdef u64 m2p_entry(Host* host) noexcept nogil
cdef void hide_machine_to_phys(Vcpu* v, u64 l4_mfn) noexcept nogil
cdef i64 take_base(Vcpu* v, u64 mfn) noexcept nogil
