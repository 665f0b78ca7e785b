/*
 * A fuzzer of hypercalls: what its parts share.
 *
 * A generator fills in one call: mostly a proper one, sometimes one with a field spoiled, sometimes a wild one. The
 * loop makes it at once, or keeps it for a batch, and counts it under the hypercall's number and the sub-operation's.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include "guest.h"

/* ---- chance ---- */
u64 rnd(void);
static inline u64 below(u64 n) /* 0 to n-1 */
{
    return (rnd() >> 11) % n;
}
static inline int chance(u32 percent)
{
    return below(100) < percent;
}
u64 odd_value(void);                  /* numbers at which checks go wrong, and plain random ones */
u64 odd_address(void);                /* the same, less those where mappings must stay as they are */
void *arena(u64 size);                /* zeroed memory for arguments; sometimes just before a page that is not there */
void spoil(void *structure, u64 size); /* change one field, in one call of five */

/* ---- calls ---- */
struct call {
    u64 op, args[6];
    u32 sub;               /* the sub-operation under which it is counted */
    s64 least;             /* the least result that is a success: 0 unless a generator says otherwise */
    const signed short *status;     /* a status of its own that has to be 0 */
    void (*done)(struct call *, s64 result); /* called after a success */
    u64 cookie[2];
};
typedef void generator(struct call *);
struct family {
    generator *generate;
    u32 weight;
    u8 alone; /* never part of a batch */
};
#define NO_SUCH 99          /* the sub-operation of numbers that are none */
#define SUB_PT_WRITE 0x1000 /* no hypercall: a write to a page table, which Xen carries out */
void count_call(u64 op, u32 sub, int good);

static inline void fill(struct call *c, u64 op, u32 sub, u64 a, u64 b, u64 d, u64 e)
{
    c->op = op, c->sub = sub, c->args[0] = a, c->args[1] = b, c->args[2] = d, c->args[3] = e;
}

/* ---- toys: pages that calls are about ---- */
#define NR_TOYS 256
#define FIRST_SEGMENT_TOY 96  /* below: page tables to be */
#define FIRST_DATA_TOY 112
#define FIRST_SPARE_TOY 224   /* given back and got again */
enum role {
    LOOSE,  /* mapped writable at its own address */
    READY,  /* mapped read-only there, with contents for its kind */
    PINNED,
    GONE,   /* a spare without a frame */
};
extern char toys[NR_TOYS][PAGE_SIZE];
extern u8 role_of[NR_TOYS];
static inline u32 level_of(u32 toy)
{
    return toy < 48 ? 1 : toy < 72 ? 2 : toy < 84 ? 3 : toy < FIRST_SEGMENT_TOY ? 4 : 0;
}
static inline u64 toy_mfn(u32 toy)
{
    return mfn_of(toys[toy]);
}
u32 any_toy(u32 from, u32 to, int role); /* one with that role if a few tries find one; role -1: any */
u64 odd_mfn(void);                       /* mostly a toy's; also the hypervisor's, page tables, beyond the end */
int is_needed(u64 mfn);                  /* a frame of this kernel's own, and no toy's: without it nothing goes on */
u64 spare(u64 machine_address);          /* the same place in a toy's frame, if it is in a frame that is needed */
#define SCRATCH 0x10000000UL             /* addresses at which anything may be mapped */
#define SCRATCH_PAGES 64
extern u16 self_domid, peer_domid;
u16 some_domid(void);

void memory_init(void);
void grants_init(void);
void events_init(void);
extern const struct family memory_families[], grant_families[], event_families[], other_families[];
extern int with_fifo;

#endif
