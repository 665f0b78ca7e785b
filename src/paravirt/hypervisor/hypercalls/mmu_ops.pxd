from paravirt.hypervisor.records cimport Host, Vcpu, i64, u16, u32, u64

cdef i64 do_mmu_update(Host* host, Vcpu* v, u64* args) noexcept nogil
cdef i64 do_mmuext_op(Host* host, Vcpu* v, u64* args) noexcept nogil
cdef i64 do_update_va_mapping(Host* host, Vcpu* v, u64* args) noexcept nogil
cdef i64 do_update_va_mapping_otherdomain(Host* host, Vcpu* v, u64* args) noexcept nogil
cdef i64 page_owner(Vcpu* v, u16 domid, u16* result) noexcept nogil
cdef bint may_touch(Vcpu* v, u16 domid) noexcept nogil
cdef i64 continue_call(Vcpu* v, u64* args, u64 at, u64 count, u64 done, u64 domid) noexcept nogil
cdef i64 begin_batch(Vcpu* v, u64* args, u32* done) noexcept nogil
cdef i64 end_batch(Vcpu* v, u64* args, u64 at, u32 left, u32 done, i64 rc) noexcept nogil
cdef i64 update_entry(Vcpu* v, u64 address, u64 value, bint preserve_ad, u16 owner, u16 mapped) noexcept nogil
cdef i64 update_mach_phys(Vcpu* v, u64 mfn, u64 pfn, u16 owner) noexcept nogil
cdef i64 update_one(Vcpu* v, u64* request, u16 tables, u16 frames) noexcept nogil
cdef i64 update_batch(Vcpu* v, u64* args, u64 at, u32 count, u16 tables, u32 done) noexcept nogil
cdef i64 flush_for(Vcpu* v, u64 flags, u64 va) noexcept nogil
cdef i64 update_va_mapping(Vcpu* v, u64* args, u16 mapped) noexcept nogil
cdef i64 pin(Vcpu* v, u64 mfn, u16 owner, u32 level) noexcept nogil
cdef i64 unpin(Vcpu* v, u64 mfn, u16 owner) noexcept nogil
cdef i64 set_ldt(Vcpu* v, u64 address, u64 entries) noexcept nogil
cdef i64 clear_page(Vcpu* v, u64 mfn, u16 owner) noexcept nogil
cdef i64 copy_page(Vcpu* v, u64 target, u64 source, u16 owner) noexcept nogil
cdef void flush_vcpus(Vcpu* v, u64 mask, bint page, u64 va) noexcept nogil
cdef i64 flush_listed(Vcpu* v, u64 mask_address, bint page, u64 va) noexcept nogil
cdef i64 flush_op(Vcpu* v, u32 command, u64* op) noexcept nogil
cdef i64 mmuext_own(Vcpu* v, u32 command, u64* op) noexcept nogil
cdef i64 mmuext_one(Vcpu* v, u64* op, u16 owner) noexcept nogil
cdef i64 mmuext_batch(Vcpu* v, u64* args, u64 at, u32 count, u16 owner, u32 done) noexcept nogil
