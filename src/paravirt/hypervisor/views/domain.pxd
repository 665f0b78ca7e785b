from paravirt.hypervisor.records cimport Domain as DomainRec
from paravirt.hypervisor.records cimport Host as HostRec
from paravirt.hypervisor.records cimport u8, u16, u32, u64, i64

cdef class Domain:
    cdef DomainRec* rec
    cdef readonly object host
    cdef readonly list vcpus
    cdef readonly list shared_frames
    cdef public object console_sink
    cdef public str name
    cdef readonly object p2m
    cdef public object state
    cdef u64 pirq_eoi_mfn
    cdef bint destroyed
    cdef u64 _rid_at
    cdef u32 _rid_stage
    cdef void _begin_end(self)
    cdef void _release_vcpus(self)
    cdef void _rid_of(self, u64 mfn) noexcept nogil
    cdef bint _rid_of_some(self) noexcept nogil
    cdef u64 _share_frame(self)

cdef bint populate_one(DomainRec* rec, u64* p2m) noexcept nogil
cdef Domain new_domain(object host, HostRec* host_rec, u32 domid, u64 pages, u32 nr_vcpus, str name)
