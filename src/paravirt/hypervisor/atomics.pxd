# Words that a guest changes too, perhaps at this moment, with locked instructions: each of these is one read, or
# one locked instruction.  Bits are numbered within the word that is passed; higher bits of a number are ignored.
from paravirt.machine.cpu cimport u8, u32, u64

cdef extern from * nogil:
    const int ORDERED "__ATOMIC_SEQ_CST"
    u8 load8 "__atomic_load_n"(u8* word, int order) noexcept
    u8 exchange8 "__atomic_exchange_n"(u8* word, u8 value, int order) noexcept
    u32 load32 "__atomic_load_n"(u32* word, int order) noexcept
    void store32 "__atomic_store_n"(u32* word, u32 value, int order) noexcept
    u32 fetch_or32 "__atomic_fetch_or"(u32* word, u32 bits, int order) noexcept
    u32 fetch_and32 "__atomic_fetch_and"(u32* word, u32 bits, int order) noexcept
    bint compare_exchange32 "__atomic_compare_exchange_n"(
        u32* word, u32* expected, u32 value, bint weak, int success, int failure) noexcept
    u64 load64 "__atomic_load_n"(u64* word, int order) noexcept
    u64 fetch_or64 "__atomic_fetch_or"(u64* word, u64 bits, int order) noexcept
    u64 fetch_and64 "__atomic_fetch_and"(u64* word, u64 bits, int order) noexcept

cdef inline bint test_bit32(u32* word, u32 bit) noexcept nogil:
    return (load32(word, ORDERED) >> (bit & 31)) & 1

cdef inline bint test_and_set_bit32(u32* word, u32 bit) noexcept nogil:
    cdef u32 mask = (<u32>1) << (bit & 31)
    return (fetch_or32(word, mask, ORDERED) & mask) != 0

cdef inline bint test_and_clear_bit32(u32* word, u32 bit) noexcept nogil:
    cdef u32 mask = (<u32>1) << (bit & 31)
    return (fetch_and32(word, ~mask, ORDERED) & mask) != 0

cdef inline bint test_bit64(u64* word, u32 bit) noexcept nogil:
    return (load64(word, ORDERED) >> (bit & 63)) & 1

cdef inline bint test_and_set_bit64(u64* word, u32 bit) noexcept nogil:
    cdef u64 mask = (<u64>1) << (bit & 63)
    return (fetch_or64(word, mask, ORDERED) & mask) != 0

cdef inline bint test_and_clear_bit64(u64* word, u32 bit) noexcept nogil:
    cdef u64 mask = (<u64>1) << (bit & 63)
    return (fetch_and64(word, ~mask, ORDERED) & mask) != 0
