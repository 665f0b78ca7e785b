/* Exceptions that the guest kernel itself raises: vector, error code, place, and the frame's other words. */
#include "guest.h"

const char guest_name[] = "exceptions";

static void integer(void)
{
    TRY("xorl %%ecx, %%ecx; divl %%ecx", ::: "eax", "ecx", "edx");
    expect_fault("div by zero", 0, 0);
    TRY("movl $1, %%edx; xorl %%eax, %%eax; movl $1, %%ecx; divl %%ecx", ::: "eax", "ecx", "edx");
    expect_fault("div overflow", 0, 0);
    TRY("pushfq; orl $0x100, (%%rsp); popfq; nop", ::: "cc");
    expect_fault("trap flag", 1, 0);
    printf("trap flag in frame: %d\n", !!(fault.rflags & X86_EFLAGS_TF));
    TRY(".byte 0xf1", :);
    show_fault("icebp"); /* one byte, trap: the place is behind it */
    TRY("int3", :);
    expect_fault("int3", 3, 0);
    TRY(".byte 0xcd, 3", :);
    expect_fault("int $3", 3, 0);
    TRY("int $4", :);
    expect_fault("int $4", 4, 0);
    TRY("ud2", :);
    expect_fault("ud2", 6, 0);
    TRY(".byte 0x0f, 0xb9, 0xc0", :); /* ud1 */
    expect_fault("ud1", 6, 0);
    TRY(".byte 0x06", :); /* push %es: not in 64-bit mode */
    expect_fault("push es", 6, 0);
    TRY("lock; .byte 0x90", :);
    expect_fault("lock nop", 6, 0);
    TRY("nop", :);
    expect_fault("nop", -1, 0);
}

static void protection(void)
{
    u64 noncanonical = 1UL << 62, value;
    TRY("movq (%1), %0", : "=r"(value) : "r"(noncanonical));
    expect_fault("read non-canonical", 13, 0);
    TRY("movq %1, (%0)", ::"r"(noncanonical), "r"(0UL));
    expect_fault("write non-canonical", 13, 0);
    TRY("movw %0, %%ds", ::"r"((u16)0x1237));
    expect_fault("ds beyond table", 13, 0x1234);
    TRY("movw %0, %%es", ::"r"((u16)FLAT_KERNEL_SS));
    expect_fault("es flat data", -1, 0);
    TRY("movw %0, %%es", ::"r"((u16)0));
    TRY("movw %0, %%ss", ::"r"((u16)0));
    show_fault("ss null rpl 0");
    TRY("movw %0, %%ss", ::"r"((u16)3));
    expect_fault("ss null rpl 3", 13, 0);
    TRY("movw %0, %%es", ::"r"((u16)0xe030)); /* readable code with rpl 0 */
    show_fault("es code rpl 0");
    TRY("movw %0, %%es", ::"r"((u16)0));
}

static void paging(void)
{
    u64 value, hole = 0x12345000;
    char *page = page_alloc();
    TRY("movq (%1), %0", : "=r"(value) : "r"(hole));
    expect_fault("read not mapped", 14, 0);
    TRY("movq %1, (%0)", ::"r"(hole + 8), "r"(0UL));
    expect_fault("write not mapped", 14, 2);
    TRY("jmp *%0", ::"r"(hole + 16));
    printf("exec not mapped: %s(%lx) rip is address: %d\n", vector_name(fault.vector), fault.error,
           fault.rip == hole + 16);
    check(fault.vector == 14 && fault.error == 0x10);

    check(page_readonly(page) == 0);
    TRY("movq (%1), %0", : "=r"(value) : "r"(page));
    expect_fault("read read-only", -1, 0);
    TRY("movb $1, (%0)", ::"r"(page + 5));
    expect_fault("write read-only", 14, 3);
    check(fault.cr2 == (u64)page + 5);
    check(page_writable(page) == 0);
    page[0] = (char)0xc3;
    TRY("call *%0", ::"r"(page));
    expect_fault("exec without NX", -1, 0);
    check(map_page((u64)page, mfn_of(page) << 12 | PTE_P | PTE_RW | PTE_NX) == 0);
    TRY("jmp *%0", ::"r"(page));
    printf("exec NX: %s(%lx)\n", vector_name(fault.vector), fault.error);
    check(fault.vector == 14 && fault.error == 0x11);
    check(map_page((u64)page, 0) == 0);
    TRY("movq (%1), %0", : "=r"(value) : "r"(page + 0xff8));
    printf("read unmapped page: %s(%lx) cr2 offset %lx\n", vector_name(fault.vector), fault.error,
           fault.cr2 - (u64)page);
    check(page_writable(page) == 0);

    /* Xen's own memory: whether a page is there is its secret, so the present bit is not compared. */
    TRY("movq (%1), %0", : "=r"(value) : "r"(0xffff830000000000));
    printf("read Xen's memory: %s(%lx)\n", vector_name(fault.vector), fault.error & ~1UL);
    check(fault.vector == 14 && (fault.error & ~1UL) == 0);
    TRY("movq %1, (%0)", ::"r"(0xffff830000000000), "r"(0UL));
    printf("write Xen's memory: %s(%lx)\n", vector_name(fault.vector), fault.error & ~1UL);
    check(fault.vector == 14 && (fault.error & ~1UL) == 2);
    TRY("movq (%1), %0", : "=r"(value) : "r"(MACH2PHYS_VIRT_START));
    expect_fault("read machine-to-phys", -1, 0);
    TRY("movq %1, (%0)", ::"r"(MACH2PHYS_VIRT_START), "r"(0UL));
    expect_fault("write machine-to-phys", 14, 3);
}

static void frames(void)
{
    u64 rsp;
    TRY("movq %%rsp, %0; ud2", : "=r"(rsp));
    printf("frame: cs=%lx ss=%lx IF=%d mask=%d mask inside=%d rsp kept=%d\n", fault.cs, fault.ss,
           !!(fault.rflags & X86_EFLAGS_IF), fault.saved_mask, fault.mask_inside, fault.rsp == rsp);
    vcpu0->evtchn_upcall_mask = 0;
    TRY("ud2", :);
    events_mask();
    printf("frame, events on: IF=%d mask=%d mask inside=%d\n", !!(fault.rflags & X86_EFLAGS_IF),
           fault.saved_mask, fault.mask_inside);
    TRY("std; stc; ud2; cld", ::: "cc");
    printf("flags: DF=%d CF=%d\n", !!(fault.rflags & X86_EFLAGS_DF), !!(fault.rflags & X86_EFLAGS_CF));
    asm volatile("cld");
    for (u64 skew = 0; skew < 32; skew += 8) {
        /* The bounce frame starts on a 16-byte boundary whatever rsp was. */
        TRY_THEN("subq %1, %%rsp; movq %%rsp, %0; ud2", "addq %1, %%rsp", : "=&r"(rsp) : "r"(skew));
        printf("skew %lu: rsp saved exactly=%d\n", skew, fault.rsp == rsp);
    }
}

void guest_main(void)
{
    integer();
    protection();
    paging();
    frames();
}
