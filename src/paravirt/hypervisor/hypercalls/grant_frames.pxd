# Grants in use and grant tables, as C objects.
import cython
from paravirt.hypervisor.records cimport u32, u64

cdef class Active:
    cdef public u32 domid
    cdef public u64 mfn
    cdef public u32 start
    cdef public u32 length
    cdef public bint is_sub_page
    cdef public bint is_readonly
    cdef public object behind
    cdef public list pins

cdef class GrantFrames:
    cdef object _domain
    cdef object _host
    cdef object _memory
    cdef public object limit
    cdef readonly u32 version
    cdef public list shared
    cdef public list status
    cdef public dict active
    cdef public bint is_closed
    @cython.locals(at=u64, mfn=u64)
    cpdef u64 entry_at(self, u64 ref) except? 0
    @cython.locals(at=u64, mfn=u64)
    cpdef u64 status_at(self, u64 ref) except? 0
    @cython.locals(at=u64)
    cpdef u64 frame_at(self, u64 ref) except? 0
    @cython.locals(at=u64, word=u32, flags=u32, domid=u32)
    cpdef read(self, u64 ref)

cpdef GrantFrames grants_of(domain)
