from paravirt.hypervisor.records cimport Host, Vcpu, u8, u32, u64, i64

cdef i64 refuse_frame(Host* host, u64 mfn, i64 error) noexcept nogil
cdef i64 refuse_entry(Host* host, u8 kind, u64 table_mfn, u64 index, u64 value, i64 error) noexcept nogil
cdef void note_refusal(Host* host, Vcpu* v, u32 number, u64* args, u32 how, i64 answer) noexcept nogil
cdef void note_refused_write(Host* host, Vcpu* v, u64 table_mfn, u64 index, u64 value, i64 error) noexcept nogil
