/* A kernel that wants its frame list at an address of its own, outside the initial mapping (INIT_P2M). */
#include "guest.h"

const char guest_name[] = "start_p2m";

static const volatile u64 *window;

/* The entry for va at the last level, 0 if there is none; the tables are reached through one page of ours. */
static u64 look_up(u64 va)
{
    u64 entry = mfn_of((void *)kernel_l4) << 12 | PTE_P;
    for (int level = 4; level && entry & PTE_P; level--) {
        check(map_page((u64)window, (entry & PTE_ADDR) | PTE_P) == 0);
        entry = window[va >> (12 + 9 * (level - 1)) & 511];
    }
    return entry & PTE_P ? entry : 0;
}

static u64 frame_at(u64 va)
{
    return (look_up(va) & PTE_ADDR) >> 12;
}

static void frame_list(void)
{
    u64 list_pages = (start_info->nr_pages * 8 + PAGE_SIZE - 1) / PAGE_SIZE;
    u64 first = start_info->first_p2m_pfn, count = start_info->nr_p2m_frames, wrong = 0, inside = 0, found = 0;
    printf("frame list at %lx\n", start_info->mfn_list);
    check(start_info->mfn_list == NOTE_INIT_P2M);
    printf("frames: %lu of the list, %lu of its page tables\n", list_pages, count - list_pages);
    for (u64 pfn = 0; pfn < start_info->nr_pages; pfn++)
        wrong += m2p[p2m[pfn]] != pfn;
    printf("entries that disagree with the machine-to-phys table: %lu\n", wrong);
    for (u64 i = 0; i < list_pages; i++)
        wrong += frame_at(NOTE_INIT_P2M + i * PAGE_SIZE) != p2m[first + i];
    printf("pages of the list in other frames than first_p2m_pfn says: %lu\n", wrong);
    for (u64 i = 0; i < count; i++)
        inside += look_up(VIRT_BASE + (first + i) * PAGE_SIZE) != 0;
    printf("of these frames in the initial mapping: %lu\n", inside);
    /* The tables lie behind the list: the frames above the list that the walk goes through. */
    u64 entry = ((u64 *)kernel_l4)[NOTE_INIT_P2M >> 39 & 511];
    for (int level = 3; level; level--) {
        u64 pfn = m2p[(entry & PTE_ADDR) >> 12];
        found += pfn >= first + list_pages && pfn < first + count;
        check(map_page((u64)window, (entry & PTE_ADDR) | PTE_P) == 0);
        entry = window[NOTE_INIT_P2M >> (12 + 9 * (level - 1)) & 511];
    }
    printf("of its tables behind the list: %lu\n", found);
    printf("nothing mapped behind the list: %d\n", !look_up(NOTE_INIT_P2M + list_pages * PAGE_SIZE));
    check(!wrong && !inside && found == 3);
    *(volatile u64 *)NOTE_INIT_P2M = *(volatile u64 *)NOTE_INIT_P2M;
    printf("the list can be written: %d\n", !!(look_up(NOTE_INIT_P2M) & PTE_RW));
}

static void tables(void)
{
    u64 mapped = 0, writable = 0;
    for (u64 i = 0; i < start_info->nr_pt_frames; i++) {
        u64 pte = look_up(start_info->pt_base + i * PAGE_SIZE);
        mapped += pte != 0;
        writable += (pte & PTE_RW) != 0;
    }
    printf("other page tables mapped: all: %d, writable: %lu\n", mapped == start_info->nr_pt_frames, writable);
    check(!writable);
}

void guest_main(void)
{
    window = page_alloc();
    frame_list();
    tables();
}
