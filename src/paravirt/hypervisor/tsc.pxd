cdef extern from *:
    """
    #include <x86intrin.h>
    #define paravirt_read_tsc() ((unsigned long long)__rdtsc())
    """
    unsigned long long read_tsc "paravirt_read_tsc" () noexcept nogil
