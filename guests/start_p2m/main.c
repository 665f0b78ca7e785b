/* A kernel that wants its frame list at an address of its own, outside the initial mapping (INIT_P2M). */
#include "guest.h"

const char guest_name[] = "start_p2m";

void guest_main(void)
{
    u64 bytes = start_info->nr_pages * 8, wrong = 0, outside = 0;
    printf("frame list at %lx\n", start_info->mfn_list);
    check(start_info->mfn_list == NOTE_INIT_P2M);
    printf("its frames: as many as the list takes: %d\n",
           start_info->nr_p2m_frames == (bytes + PAGE_SIZE - 1) / PAGE_SIZE);
    for (u64 i = 0; i < start_info->nr_p2m_frames; i++) {
        u64 *pte = pte_of(NOTE_INIT_P2M + i * PAGE_SIZE);
        wrong += !pte || (*pte & PTE_ADDR) >> 12 != p2m[start_info->first_p2m_pfn + i];
        /* Behind what is mapped at the virtual base. */
        u64 *other = pte_of(VIRT_BASE + (start_info->first_p2m_pfn + i) * PAGE_SIZE);
        outside += !other || !(*other & PTE_P);
    }
    printf("mapped to other frames than first_p2m_pfn says: %lu\n", wrong);
    printf("frames of the list outside the initial mapping: all of them: %d\n",
           outside == start_info->nr_p2m_frames);
    check(!wrong);
    for (u64 pfn = 0; pfn < start_info->nr_pages; pfn++)
        wrong += m2p[p2m[pfn]] != pfn;
    printf("entries that disagree with the machine-to-phys table: %lu\n", wrong);
    check(!wrong);
    u64 first = *(volatile u64 *)NOTE_INIT_P2M;
    *(volatile u64 *)NOTE_INIT_P2M = first;
    printf("the list can be written: 1\n");
    u64 *behind = pte_of(NOTE_INIT_P2M + start_info->nr_p2m_frames * PAGE_SIZE);
    printf("nothing behind it: %d\n", !behind || !(*behind & PTE_P));
    u64 tables = 0, writable = 0;
    for (u64 i = 0; i < start_info->nr_pt_frames; i++) {
        u64 pte = *pte_of(start_info->pt_base + i * PAGE_SIZE);
        tables += (pte & PTE_P) != 0;
        writable += (pte & PTE_RW) != 0;
    }
    printf("page tables mapped: all: %d, writable: %lu\n", tables == start_info->nr_pt_frames, writable);
    check(!writable);
}
