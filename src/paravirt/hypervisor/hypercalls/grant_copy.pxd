# One request's parts, as C objects.
import cython
from paravirt.hypervisor.records cimport u32, u64
from paravirt.hypervisor.hypercalls.grant_active cimport Part

cdef class _End:
    cdef object domain
    cdef bint by_grant
    cdef u64 where
    cdef u32 offset

cdef _End _end(caller, side, bint by_grant)
cdef Part _claim(caller, _End end, bint readonly)
cdef _release(_End end, Part part, bint readonly)
@cython.locals(mfn=u64, offset=u32, part=Part)
cdef _copy_parts(host, u32 at, Part source, u32 to, Part dest, u32 length)
