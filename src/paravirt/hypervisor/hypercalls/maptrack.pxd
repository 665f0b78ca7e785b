# Mappings of grants, as C objects.
import cython
from paravirt.hypervisor.records cimport u32, u64

cdef class Mapping:
    cdef readonly u32 domid
    cdef readonly u32 ref
    cdef public u32 flags

cdef class MapTrack:
    cdef public u32 max_frames
    cdef readonly dict mappings
    cdef object _free
    cdef u32 _frames
    cpdef take(self)
    cpdef give(self, handle)
