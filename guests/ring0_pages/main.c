/* Page by page, where an engine of ours may keep pages of its own: nothing there is a guest's to read, write or run. */
#include "attack.h"

const char guest_name[] = "ring0_pages";

#define SMALL 176
#define PLACES (SMALL + 16)
#define STUBS (slot_start(258) + 3 * PAGE_SIZE)
#define LARGE (2UL << 20)

USER_ASM(u_read, "movq (%rdi), %rax; int3");
USER_ASM(u_write, "lock orq $0, (%rdi); int3");
USER_ASM(u_call, "jmp *%rdi");
USER_ASM(u_out, "outb %al, $0x10; int3");
USER_ASM(u_out_word, "outw %ax, $0xf; int3");
USER_ASM(u_in, "inb $0x10, %al; int3");

static u64 slot_start(int slot)
{
    return (u64)slot << 39 | 0xffff000000000000UL;
}

static int user(const char *code, u64 size, u64 va)
{
    struct regs r;
    user_frame(&r);
    r.rdi = va;
    return run_user(code, size, &r);
}

#define USER(code, va) user(code, (u64)(code##_end - code), va)

/* The first pages of a slot, one by one, and then the beginnings of large ones. */
static u64 place(int slot, int number)
{
    return slot_start(slot) + (number < SMALL ? (u64)number * PAGE_SIZE : (u64)(number - SMALL + 1) * LARGE);
}

static u64 stack_pointer(void)
{
    u64 value;
    asm volatile("movq %%rsp, %0" : "=r"(value));
    return value;
}

static void by_the_kernel(int slot)
{
    u64 value;
    int reads = 0, writes = 0, calls = 0;
    for (int i = 0; i < PLACES; i++) {
        u64 va = place(slot, i);
        TRY("movq (%1), %0", : "=&r"(value) : "r"(va));
        reads += fault.vector == 14 && fault.cr2 == va;
        TRY("lock orq $0, (%0)", ::"r"(va) : "memory");
        writes += fault.vector == 14 && fault.cr2 == va;
        TRY_THEN("call *%0", "movq %1, %%rsp\n\t", ::"r"(va), "r"(stack_pointer()) : "memory");
        calls += fault.vector == 14 && fault.cr2 == va;
    }
    printf("  slot %d, kernel: of %d places %d reads, %d writes and %d calls fault\n", slot, PLACES, reads, writes, calls);
    stays("no write passed", writes == PLACES);
}

static void by_user_mode(int slot)
{
    int reads = 0, writes = 0, calls = 0;
    for (int i = 0; i < PLACES; i++) {
        u64 va = place(slot, i);
        reads += USER(u_read, va) == 14 && user_exit_cr2 == va;
        writes += USER(u_write, va) == 14 && user_exit_cr2 == va;
        calls += USER(u_call, va) == 14 && user_exit_cr2 == va;
    }
    printf("  slot %d, user: of %d places %d reads, %d writes and %d calls fault\n", slot, PLACES, reads, writes, calls);
    stays("no write passed", writes == PLACES);
}

/* Where our engine's stubs are: each offset on its own.  What a stub does there must be nothing but a fault, or what
 * `syscall` does anyway. */
static void stubs(void)
{
    int page_faults = 0, faults = 0, hypercalls = 0, tried = 0;
    rule("no stub does anything for who jumps there");
    for (u64 at = 0; at < PAGE_SIZE; at += 16) {
        if (at == 0x210 || at == 0x220)
            continue; /* those of 32-bit code: it would go on as such, as after a far jump of its own */
        tried++;
        u64 version = (u64)-1;
        TRY_THEN("leaq 3f(%%rip), %%rcx\n\txorl %%edi, %%edi\n\txorl %%esi, %%esi\n\tmovl %4, %%eax\n\tjmp *%1\n3:",
                 "movq %2, %%rsp\n\tmovq %%rax, %0\n\t", : "=m"(version) : "r"(STUBS + at), "r"(stack_pointer()), "m"(version), "i"(__HYPERVISOR_xen_version)
                 : "memory", "rax", "rcx", "rdx", "rdi", "rsi", "r11");
        page_faults += fault.vector == 14 && fault.cr2 == STUBS + at;
        faults += fault.vector >= 0;
        hypercalls += fault.vector < 0 && version >> 16 == 4;
    }
    printf("  of %d jumps %d are page faults there, %d others fault, %d were hypercalls\n", tried, page_faults,
           faults - page_faults, hypercalls);
    stays("each was one of these", faults + hypercalls == tried);
}

static void ports(void)
{
    rule("no port is a process's: #GP");
    twin_is("no port at all", USER(u_read, USER_DATA), 3);
    attack("outb", USER(u_out, 0), 13);
    attack("outw to the port before", USER(u_out_word, 0), 13);
    attack("inb", USER(u_in, 0), 13);
}

void guest_main(void)
{
    user_init();
    rule("page by page, slots 258 to 260 are closed: #PF");
    for (int slot = 258; slot <= 260; slot++) {
        by_the_kernel(slot);
        by_user_mode(slot);
    }
    stubs();
    ports();
}
