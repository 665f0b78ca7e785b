/* The rest: traps, callbacks, segment bases, versions, devices, and what an unprivileged domain is refused. */
#include "fuzz.h"

static u64 address(void)
{
    return chance(80) ? (u64)failsafe_callback : odd_value() | (chance(50) ? 1UL << 62 : 0);
}

static int canonical(u64 value)
{
    return (u64)((s64)(value << 16) >> 16) == value;
}

static void trap_table(struct call *c)
{
    struct trap_info *table = arena(4 * sizeof(*table));
    for (u32 i = 0; i < 3; i++)
        table[i] = (struct trap_info){(u8)(0x30 + below(200)), (u8)below(8), (u16)(below(2) ? FLAT_KERNEL_CS : odd_value()),
                                      chance(90) ? TRAP_STUB(13UL) : odd_value()};
    fill(c, __HYPERVISOR_set_trap_table, 0, chance(95) ? (u64)table : 0x7ffff000, 0, 0, 0);
}

static void callbacks(struct call *c)
{
    static u16 types[] = {CALLBACKTYPE_failsafe, CALLBACKTYPE_syscall, CALLBACKTYPE_sysenter, CALLBACKTYPE_syscall32,
                          CALLBACKTYPE_event, CALLBACKTYPE_nmi, CALLBACKTYPE_sysenter_deprecated};
    u64 where = address();
    u16 type = types[below(ARRAY_SIZE(types))];
    if (canonical(where))
        where = type == CALLBACKTYPE_event ? (u64)event_callback : type == CALLBACKTYPE_nmi ? (u64)nmi_callback
                                                                                           : (u64)failsafe_callback;
    if (chance(20)) {
        fill(c, __HYPERVISOR_set_callbacks, 0, (u64)event_callback, (u64)failsafe_callback,
             canonical(where) ? (u64)syscall_callback : where, 0);
        return;
    }
    if (chance(30)) { /* nmi_op: the same by another door */
        u64 *words = arena(16);
        words[0] = canonical(where) ? (u64)nmi_callback : where;
        u32 op = (u32)below(4);
        fill(c, __HYPERVISOR_nmi_op, op, op, (u64)words, 0, 0);
        return;
    }
    if (chance(30)) {
        struct callback_unregister *u = arena(sizeof(*u));
        u->type = chance(60) ? CALLBACKTYPE_nmi : (u16)below(9);
        fill(c, __HYPERVISOR_callback_op, CALLBACKOP_unregister, CALLBACKOP_unregister, (u64)u, 0, 0);
        return;
    }
    struct callback_register *r = arena(sizeof(*r));
    r->type = type;
    r->flags = (u16)below(2);
    r->address = where;
    fill(c, __HYPERVISOR_callback_op, CALLBACKOP_register, CALLBACKOP_register, (u64)r, 0, 0);
}

static void stacks_and_bases(struct call *c)
{
    static char stack[4096] __attribute__((aligned(16)));
    u32 which = (u32)below(5);
    switch (below(6)) {
    case 0:
        fill(c, __HYPERVISOR_stack_switch, 0, FLAT_KERNEL_SS, (u64)stack + sizeof(stack), 0, 0);
        return;
    case 1:
        fill(c, __HYPERVISOR_fpu_taskswitch, 0, below(2), 0, 0, 0);
        return;
    default:
        fill(c, __HYPERVISOR_set_segment_base, which, which, chance(70) ? below(1UL << 40) : odd_value(), 0, 0);
    }
}

static void debug_registers(struct call *c)
{
    u64 number = below(9);
    if (chance(50)) {
        fill(c, __HYPERVISOR_get_debugreg, (u32)number, number, 0, 0, 0);
        return;
    }
    u64 value = number < 4 ? 0x300000000UL + below(4096) : number == 7 && chance(80) ? 0x400 : odd_value();
    fill(c, __HYPERVISOR_set_debugreg, (u32)number, number, value, 0, 0);
}

static void versions(struct call *c)
{
    u32 op = (u32)below(12);
    u64 *words = arena(2048);
    words[0] = op == XENVER_get_features ? below(2) : 0;
    fill(c, __HYPERVISOR_xen_version, op, op, chance(95) ? op == XENVER_pagesize ? 0 : (u64)words : odd_value(), 0, 0);
}

static void assists(struct call *c)
{
    u64 cmd = below(100) < 95 ? below(2) : odd_value();
    static const u64 types[] = {0, 1, 3, 4, 5, 32, 2};
    u64 type = chance(90) ? types[below(ARRAY_SIZE(types))] : odd_value();
    if (type == 2)
        cmd = 0; /* stays on */
    fill(c, __HYPERVISOR_vm_assist, type < 6 || type == 32 ? (u32)type : NO_SUCH, cmd, type, 0, 0);
}

static void devices(struct call *c)
{
    u32 op = (u32)below(32);
    u64 *words = arena(64);
    words[0] = chance(80) ? below(4) : odd_value();
    if (op == PHYSDEVOP_set_iobitmap)
        words[0] = (u64)toys[FIRST_DATA_TOY], words[1] = below(65537);
    if (op == 17 || op == 28)
        words[0] = toy_mfn(any_toy(FIRST_DATA_TOY, FIRST_SPARE_TOY, -1));
    spoil(words, 16);
    if (op > 3 && op < 11 && chance(20)) {
        u32 *compat = arena(64);
        compat[0] = op;
        memcpy(&compat[2], words, 16);
        fill(c, __HYPERVISOR_physdev_op_compat, op, (u64)compat, 0, 0, 0);
        return;
    }
    fill(c, __HYPERVISOR_physdev_op, op, op, chance(97) ? (u64)words : odd_value(), 0, 0);
}

/* For other kinds of guests, or for privileged ones. */
static void not_ours(struct call *c)
{
    static const u8 numbers[] = {
        __HYPERVISOR_platform_op, __HYPERVISOR_console_io, __HYPERVISOR_xsm_op, __HYPERVISOR_xenoprof_op,
        __HYPERVISOR_hvm_op, __HYPERVISOR_sysctl, __HYPERVISOR_domctl, __HYPERVISOR_kexec_op, __HYPERVISOR_tmem_op,
        __HYPERVISOR_argo_op, __HYPERVISOR_xenpmu_op, __HYPERVISOR_dm_op, __HYPERVISOR_hypfs_op, 48, 49, 50,
    };
    u32 number = numbers[below(ARRAY_SIZE(numbers))];
    u64 *words = arena(256);
    for (u32 i = 0; i < 8; i++)
        words[i] = odd_value();
    if (number == __HYPERVISOR_domctl || number == __HYPERVISOR_sysctl || number == __HYPERVISOR_platform_op)
        ((u32 *)words)[0] = (u32)below(90), ((u32 *)words)[1] = chance(50) ? 0x15 : (u32)below(32), words[1] = self_domid;
    if (number == __HYPERVISOR_hvm_op) {
        u64 op = chance(50) ? 10 : below(30); /* get_time, which is for every guest */
        ((u16 *)words)[0] = some_domid();
        fill(c, number, (u32)op, op, (u64)words, 0, 0);
        return;
    }
    fill(c, number, 0, chance(70) ? (u64)words : below(40), (u64)words, below(8), (u64)words);
}

const struct family other_families[] = {
    {trap_table, 4, 0}, {callbacks, 20, 0}, {stacks_and_bases, 12, 0}, {debug_registers, 20, 0}, {versions, 16, 0},
    {assists, 16, 0}, {devices, 30, 0}, {not_ours, 30, 0}, {0},
};
