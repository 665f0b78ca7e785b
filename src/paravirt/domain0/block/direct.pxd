# Requests that need no waiting, carried out without the interpreter.
from paravirt.hypervisor.records cimport Host, PortServer, pthread_mutex_t, u8, u32, u64, i64

cdef extern from "<sys/uio.h>" nogil:
    cdef struct iovec:
        void* iov_base
        size_t iov_len

cdef extern from *:
    """
    #include <pthread.h>
    #include <sys/types.h>
    #include <sys/resource.h>
    #include <sys/uio.h>
    #include <unistd.h>
    /* How often this thread went to sleep by itself. */
    static inline long paravirt_times_slept(void)
    {
        struct rusage usage;
        return getrusage(RUSAGE_THREAD, &usage) == 0 ? usage.ru_nvcsw : 0;
    }
    /* What is shared with a guest is loaded here, and not again where its value is used. */
    static inline unsigned paravirt_load_once(const volatile unsigned *word) { return *word; }
    /* What was copied before is not loaded again from where it came. */
    static inline void paravirt_copied(void) { __asm__ volatile("" ::: "memory"); }
    #ifndef RWF_NOWAIT
    #define RWF_NOWAIT 8
    #endif
    """
    ssize_t preadv2(int fd, const iovec* parts, int count, i64 offset, int flags) noexcept nogil
    ssize_t pwritev(int fd, const iovec* parts, int count, i64 offset) noexcept nogil
    i64 lseek(int fd, i64 offset, int whence) noexcept nogil
    long times_slept "paravirt_times_slept" () noexcept nogil
    u32 load_once "paravirt_load_once" (const u32* word) noexcept nogil
    void copied "paravirt_copied" () noexcept nogil
    const int RWF_NOWAIT
    const int SEEK_END
    void full_barrier "__sync_synchronize" () noexcept nogil
    i64 add_atomically "__sync_add_and_fetch" (i64* word, i64 by) noexcept nogil
    int pthread_mutex_init(pthread_mutex_t* mutex, void* attributes) noexcept nogil
    int pthread_mutex_destroy(pthread_mutex_t* mutex) noexcept nogil

cdef enum RingLayout:
    PAGE = 4096
    HEADER = 64
    ENTRY = 112
    ANSWER = 16
    # Three of the header's four indices (public/io/ring.h).
    REQ_PROD = 0
    REQ_EVENT = 4
    RSP_PROD = 8

cdef enum Most:
    MOST_SEGMENTS = 256
    # After which the rest waits for Domain 0's thread, so that a guest's own turn does not become long.
    MOST_BYTES = 1048576
    MOST_REQUESTS = 64
    # A write that sleeps, and takes longer, in ns, is none that the page cache takes at once.
    SLOW_NS = 2000000

cdef enum RingHolder:
    HELD_BY_PYTHON = 0   # queue.py works on the ring
    HELD_HERE = 1        # requests are answered here
    LEFT_TO_PYTHON = 2   # the next request is one for queue.py, which has not come for it yet

ctypedef struct Ring:
    PortServer server    # first: the hypervisor sees this part only
    pthread_mutex_t lock # guards all below it
    Host* host
    int holder
    u64 pages[16]        # machine addresses
    u32 entries
    u32 req_cons         # while it is held here, all that were taken have been answered
    u32 rsp_prod
    int fd
    u64 size             # bytes of the disk
    u64 unit             # bytes that a sector number counts
    u64 sector_size
    u8 may_write
    u8 was_slow          # a write took so long that none is tried until Python says so
    u32* frames          # by grant reference: the frame that stays mapped, or 0
    u32 nr_frames
    u64 read_requests
    u64 read_bytes
    u64 write_requests
    u64 written_bytes

# A request's parts.
ctypedef struct Access:
    u8 entry[112]        # a copy: the guest may change what is in the ring at any time
    u8 segments[2048]    # another one
    u32 nr_segments
    u8 operation
    u64 offset
    u64 length
    iovec parts[256]
    u32 nr_parts

ctypedef Ring* RingPtr
ctypedef Access* AccessPtr

cdef class DirectRing:
    cdef Ring* ring
    cdef object keeper

cdef u8* place(Ring* ring, u64 offset) noexcept nogil
cdef u32 load_index(Ring* ring, u32 offset) noexcept nogil
cdef void store_index(Ring* ring, u32 offset, u32 value) noexcept nogil
cdef void take_entry(Ring* ring, u8* entry) noexcept nogil
cdef void respond(Ring* ring, Access* access) noexcept nogil
cdef u8* kept_frame(Ring* ring, u32 ref) noexcept nogil
cdef bint parse(Ring* ring, Access* access) noexcept nogil
cdef bint gather(Ring* ring, Access* access) noexcept nogil
cdef bint transfer(Ring* ring, Access* access) noexcept nogil
cdef u32 serve_requests(Ring* ring) noexcept nogil
cdef u32 serve_event(PortServer* server) noexcept nogil
cdef void give_back(Ring* ring) noexcept nogil
