/* set_trap_table: who may enter a gate by software interrupt, the event mask on entry, and refused tables. */
#include "guest.h"

const char guest_name[] = "trap_table";

USER_ASM(u_int20, "int $0x20");
USER_ASM(u_int80, "int $0x80");

static void from_kernel(void)
{
    for (u8 dpl = 0; dpl < 4; dpl++) {
        check(set_gate(0x20, dpl, FLAT_KERNEL_CS, TRAP_STUB(0x20)) == 0);
        TRY("int $0x20", :);
        printf("kernel, dpl %d: ", dpl);
        show_fault("int $0x20");
        check(fault.vector == (dpl ? 0x20 : 13));
    }
    TRY("int $0x21", :);
    expect_fault("kernel, no gate", 13, 0x21 * 8 + 2);
    TRY("int $0x80", :);
    expect_fault("kernel, int $0x80, no gate", 13, 0x80 * 8 + 2);
    /* Vector 0x80 has a short path of its own in Xen, which asks only whether there is a gate. */
    check(set_gate(0x80, 0, FLAT_KERNEL_CS, TRAP_STUB(0x80)) == 0);
    TRY("int $0x80", :);
    expect_fault("kernel, int $0x80, dpl 0", 0x80, 0);
    check(set_gate(0x80, 3, FLAT_KERNEL_CS, TRAP_STUB(0x80)) == 0);
    TRY("int $0x80", :);
    expect_fault("kernel, int $0x80, dpl 3", 0x80, 0);
    check(set_gate(3, 0, FLAT_KERNEL_CS, TRAP_STUB(3)) == 0);
    TRY("int3", :);
    show_fault("kernel, int3, dpl 0");
    check(set_gate(3, 3, FLAT_KERNEL_CS, TRAP_STUB(3)) == 0);
    /* A software interrupt pushes no error code, whatever the vector: give it a stub that expects none. */
    check(set_gate(13, 3, FLAT_KERNEL_CS, TRAP_STUB(0x22)) == 0);
    TRY("int $13", :);
    expect_fault("kernel, int $13 by gate of dpl 3", 0x22, 0);
    check(set_gate(13, 0, FLAT_KERNEL_CS, TRAP_STUB(13)) == 0);
    check(set_gate(14, 3, FLAT_KERNEL_CS, TRAP_STUB(0x22)) == 0);
    TRY("int $14", :);
    expect_fault("kernel, int $14 by gate of dpl 3", 0x22, 0);
    check(set_gate(14, 0, FLAT_KERNEL_CS, TRAP_STUB(14)) == 0);
}

static void from_user(void)
{
    struct regs r;
    user_init();
    for (u8 dpl = 0; dpl < 4; dpl++) {
        check(set_gate(0x20, dpl, FLAT_KERNEL_CS, TRAP_STUB(0x20)) == 0);
        check(set_gate(0x80, dpl, FLAT_KERNEL_CS, TRAP_STUB(0x80)) == 0);
        user_frame(&r);
        run_user(u_int20, (u64)(u_int20_end - u_int20), &r);
        printf("user, dpl %d: int $0x20: %s(%lx) at +%lu\n", dpl, vector_name((int)user_exit.vector),
               user_exit.error, user_exit.rip - USER_CODE);
        check(user_exit.vector == (dpl == 3 ? 0x20 : 13));
        user_frame(&r);
        run_user(u_int80, (u64)(u_int80_end - u_int80), &r);
        printf("user, dpl %d: int $0x80: %s(%lx) at +%lu\n", dpl, vector_name((int)user_exit.vector),
               user_exit.error, user_exit.rip - USER_CODE);
        check(user_exit.vector == 0x80);
    }
}

static void event_mask(void)
{
    for (u8 clear = 0; clear < 2; clear++) {
        check(set_gate(6, clear ? 4 : 0, FLAT_KERNEL_CS, TRAP_STUB(6)) == 0);
        for (u8 mask = 0; mask < 2; mask++) {
            vcpu0->evtchn_upcall_mask = mask;
            TRY("ud2", :);
            u8 after = vcpu0->evtchn_upcall_mask;
            events_mask();
            printf("gate's mask flag %d, events masked %d: inside %d, saved %d, after iret %d\n", clear, mask,
                   fault.mask_inside, fault.saved_mask, after);
            check(fault.mask_inside == (mask | clear) && fault.saved_mask == mask && after == mask);
        }
    }
}

static void refusals(void)
{
    struct trap_info table[3] = {{0x30, 3, FLAT_KERNEL_CS, TRAP_STUB(0x30)},
                                 {0x31, 3, FLAT_KERNEL_CS, 1UL << 62},
                                 {0, 0, 0, 0}};
    expect_result("non-canonical address", xen_set_trap_table(table), -EINVAL);
    TRY("int $0x30", :);
    expect_fault("the entry before it counts", 0x30, 0);
    table[1].address = MACH2PHYS_VIRT_START;
    expect_result("address in Xen's range", xen_set_trap_table(table), 0);
    expect_result("table not mapped", xen_set_trap_table((void *)0x12345000), -EFAULT);
    expect_result("table in Xen's range", xen_set_trap_table((void *)MACH2PHYS_VIRT_START), -EFAULT);
    /* Flags beyond DPL and mask, and a code selector with another RPL, are taken as they are. */
    expect_result("odd flags", set_gate(0x30, 0xf8 | 3, FLAT_KERNEL_CS, TRAP_STUB(0x30)), 0);
    TRY("int $0x30", :);
    expect_fault("odd flags", 0x30, 0);
    expect_result("selector with rpl 0", set_gate(0x30, 3, FLAT_KERNEL_CS & ~3, TRAP_STUB(0x30)), 0);
    TRY("int $0x30", :);
    expect_fault("selector with rpl 0", 0x30, 0);
    printf("entered with cs=%lx\n", fault.cs);
    /* An entry with address zero ends the table, so a gate cannot be removed by one. */
    expect_result("empty table", set_gate(0x30, 3, FLAT_KERNEL_CS, 0), 0);
    TRY("int $0x30", :);
    expect_fault("gate after empty table", 0x30, 0);
    /* No table at all removes every gate. */
    expect_result("no table", xen_set_trap_table(0), 0);
    traps_init();
    TRY("int $0x30", :);
    expect_fault("gate after no table", 13, 0x30 * 8 + 2);
}

void guest_main(void)
{
    from_kernel();
    from_user();
    event_mask();
    refusals();
}
