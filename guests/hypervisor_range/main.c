/* The hypervisor's part of the address space: a guest reads what is shown to it, writes nothing, and user mode less. */
#include "attack.h"

const char guest_name[] = "hypervisor_range";

USER_ASM(u_read, "movq (%rdi), %rax; int3");
USER_ASM(u_write, "movq %rax, (%rdi); int3");
USER_ASM(u_call, "jmp *%rdi");

static u64 slot_start(int slot)
{
    return (u64)slot << 39 | 0xffff000000000000UL;
}

static void by_the_kernel(void)
{
    static const char *const kinds[] = {"write", "locked add of nothing", "execute"};
    rule("no address of slots 256 to 271 is written or executed by a guest kernel: #PF; the table of slot 256 is read");
    for (int kind = 0; kind < 3; kind++) {
        int faults = 0, tried = 0;
        for (int slot = 256; slot < 272; slot++)
            for (u64 at = 0; at < 1UL << 39; at += (1UL << 39) / 64 + 4096) {
                u64 va = slot_start(slot) + at;
                if (kind == 0)
                    TRY("movq %%rax, (%0)", ::"r"(va) : "memory");
                if (kind == 1)
                    TRY("lock addq $0, (%0)", ::"r"(va) : "memory");
                if (kind == 2)
                    TRY_THEN("call *%0", "movq %1, %%rsp\n\t", ::"r"(va), "r"(({u64 s; asm volatile("movq %%rsp, %0" : "=r"(s)); s;})) : "memory");
                tried++;
                faults += fault.vector == 14 && fault.cr2 == va;
            }
        printf("  attack: %s: %s\n", kinds[kind], faults == tried ? "always #PF" : "FAILED, passed somewhere");
        failures += faults != tried;
    }
    u64 value;
    TRY("movq (%1), %0", : "=&r"(value) : "r"(&m2p[mfn_of((void *)kernel_l4)]));
    twin_runs("read of an entry of the machine-to-phys table");
    TRY("movq %0, (%0)", ::"r"(&m2p[mfn_of((void *)kernel_l4)]) : "memory");
    attack_faults("write of the same", 14, 3);
    int seen = 0;
    for (int slot = 257; slot < 272; slot++)
        for (u64 at = 0; at < 1UL << 39; at += (1UL << 39) / 64 + 4096)
            seen += TRY("movq (%1), %0", : "=&r"(value) : "r"(slot_start(slot) + at)) < 0;
    stays("nothing behind the table is readable", seen == 0);
}

static int user(const char *code, u64 size, u64 va)
{
    struct regs r;
    user_frame(&r);
    r.rdi = va;
    return run_user(code, size, &r);
}

#define USER(code, va) user(code, (u64)(code##_end - code), va)

static void by_user_mode(void)
{
    u64 kernel = (u64)&failures, mine = USER_DATA;
    rule("user mode reaches its own pages only: #PF");
    twin_is("read of its data", USER(u_read, mine), 3);
    attack("read of the kernel's data", USER(u_read, kernel), 14);
    printf("    error code %lx\n", user_exit.error);
    attack("write of the kernel's data", USER(u_write, kernel), 14);
    attack("jump into the kernel", USER(u_call, (u64)guest_main), 14);
    attack("write of the machine-to-phys table", USER(u_write, (u64)m2p), 14);
    attack("jump into the hypervisor's range", USER(u_call, slot_start(261)), 14);
    int faults = 0, tried = 0;
    for (int slot = 257; slot < 272; slot++, tried++)
        faults += USER(u_read, slot_start(slot)) == 14 && user_exit_cr2 == slot_start(slot);
    stays("reads of slots 257 to 271 fault", faults == tried);
    twin_is("write of its data", USER(u_write, mine), 3);
}

static void kernel_pages_of_user_tables(void)
{
    u64 *table = (u64 *)user_l4;
    rule("the user mode tables' own slots of the hypervisor are as closed to updates: -EINVAL");
    for (int slot = 256; slot < 272; slot += 5) {
        char label[32];
        snprintf(label, sizeof(label), "slot %d", slot);
        attack(label, set_entry(&table[slot], 0), -EINVAL);
    }
    twin("slot 272", set_entry(&table[272], 0));
}

void guest_main(void)
{
    user_init();
    by_the_kernel();
    by_user_mode();
    kernel_pages_of_user_tables();
}
