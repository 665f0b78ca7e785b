from paravirt.hypervisor.records cimport Vcpu, u64

cdef u64* find_grant_entry(Vcpu* v, u64 address, bint by_entry, u64* table_mfn) noexcept nogil
