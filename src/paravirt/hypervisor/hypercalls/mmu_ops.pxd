from paravirt.hypervisor.records cimport Host, Vcpu, u16, u32, u64, i64

cdef i64 do_mmu_update(Host* host, Vcpu* v, u64* args) noexcept nogil
cdef i64 do_mmuext_op(Host* host, Vcpu* v, u64* args) noexcept nogil
cdef i64 do_update_va_mapping(Host* host, Vcpu* v, u64* args) noexcept nogil
cdef i64 do_update_va_mapping_otherdomain(Host* host, Vcpu* v, u64* args) noexcept nogil
cdef i64 foreign_domid(Vcpu* v, u16 domid, u16* result) noexcept nogil
cdef i64 update_entry(Vcpu* v, u64 address, u64 value, bint preserve_ad, u16 mapped) noexcept nogil
cdef i64 update_mach_phys(Vcpu* v, u64 mfn, u64 pfn) noexcept nogil
cdef i64 flush_for(Vcpu* v, u64 flags, u64 va) noexcept nogil
cdef i64 pin(Vcpu* v, u64 mfn, u16 owner, u32 level) noexcept nogil
cdef i64 unpin(Vcpu* v, u64 mfn, u16 owner) noexcept nogil
cdef i64 set_ldt(Vcpu* v, u64 address, u64 entries) noexcept nogil
cdef i64 clear_page(Vcpu* v, u64 mfn, u16 owner) noexcept nogil
cdef i64 copy_page(Vcpu* v, u64 target, u64 source, u16 owner) noexcept nogil
cdef i64 flush_multi(Vcpu* v, u64 mask_address, bint page, u64 va) noexcept nogil
cdef i64 mmuext_one(Vcpu* v, u64* op, u16 owner) noexcept nogil
