/* A block frontend's ring and device, for all the ways in which it may behave. */
#ifndef BLK_H
#define BLK_H

#include "../lib/frontend.h"

#define REF 40 /* of the ring; those of the data follow */
#define DATA_PAGES 8
#define SECTORS (2048 * 2) /* of the disk that the test gives us */
#define ENTRIES 32

struct blk_segment {
    u32 ref;
    u8 first, last;
    u16 pad;
};
struct blk_request {
    u8 operation, nr_segments;
    u16 handle;
    u64 id, sector;
    struct blk_segment segments[11];
};
struct blk_indirect {
    u8 operation, indirect;
    u16 nr_segments;
    u64 id, sector;
    u16 handle;
    u32 refs[8];
};
struct blk_response {
    u64 id;
    u8 operation;
    short status;
};
struct blk_ring {
    volatile u32 req_prod, req_event, rsp_prod, rsp_event;
    u8 pad[48];
    union {
        struct blk_request request;
        struct blk_indirect indirect;
        struct blk_response response;
        u8 bytes[112];
    } entries[ENTRIES];
};

extern struct blk_ring *ring;
extern char *data[DATA_PAGES];

void storm(void);

#endif
