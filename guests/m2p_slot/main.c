/* In which L4 tables the machine-to-phys table stands, with and without m2p_strict. */
#include "attack.h"

const char guest_name[] = "m2p_slot";

#define M2P_STRICT 32

USER_ASM(u_read, "movq (%rdi), %rax; int3");

static char stack[4096] __attribute__((aligned(16)));
static struct vcpu_guest_context context;
static volatile int said;

static void show(const char *when, const u64 *table)
{
    printf("  %s: %s\n", when, table[256] & PTE_P ? "there" : "not there");
}

static void tables(void)
{
    struct regs r;
    u64 kept = kernel_l4;
    u64 *user = root_copy(user_l4), *kernel = root_copy(kernel_l4);
    show("never a table", user);
    check(pin(4, user) == 0 && pin(4, kernel) == 0);
    show("pinned", user);
    check(mmuext(MMUEXT_NEW_USER_BASEPTR, mfn_of(user), 0) == 0);
    show("in use for processes", user);
    user_frame(&r);
    r.rdi = MACH2PHYS_VIRT_START;
    printf("  read by a process: %s\n", vector_name(run_user(u_read, (u64)(u_read_end - u_read), &r)));
    check(mmuext(MMUEXT_NEW_BASEPTR, mfn_of(kernel), 0) == 0);
    show("in use for the kernel", kernel);
    check(mmuext(MMUEXT_NEW_USER_BASEPTR, mfn_of(kernel), 0) == 0);
    show("in use for both", kernel);
    check(mmuext(MMUEXT_NEW_BASEPTR, mfn_of((void *)kept), 0) == 0);
    show("in use for processes, which was the kernel's", kernel);
    check(mmuext(MMUEXT_NEW_USER_BASEPTR, mfn_of((void *)user_l4), 0) == 0);
    check(unpin(user) == 0 && unpin(kernel) == 0);
}

static void second(void)
{
    TRY("movq (%0), %%rax", ::"r"(MACH2PHYS_VIRT_START) : "rax");
    said = 1 + (fault.vector >= 0);
    for (;;)
        xen_vcpu_op(VCPUOP_down, 1, 0);
}

static void other_vcpu(void)
{
    u64 end = system_time() + PATIENCE;
    u64 *kernel = root_copy(kernel_l4), *user = root_copy(user_l4);
    vcpu_context(&context, second, stack, sizeof(stack));
    context.ctrlreg[3] = mfn_of(kernel) << 12;
    context.ctrlreg[1] = mfn_of(user) << 12;
    vcpu_takes_traps(&context, 14, 14, 4);
    check(xen_vcpu_op(VCPUOP_initialise, 1, &context) == 0);
    show("another vcpu's kernel table", kernel);
    show("another vcpu's processes' table", user);
    check(xen_vcpu_op(VCPUOP_up, 1, 0) == 0);
    while (!said && system_time() < end)
        xen_sched_op(SCHEDOP_yield, 0);
    printf("  read by its kernel: %s\n", said == 1 ? "can" : said == 2 ? "cannot" : "did not run");
}

void guest_main(void)
{
    user_init();
    printf("without m2p_strict:\n");
    tables();
    check(H2(__HYPERVISOR_vm_assist, VMASST_CMD_enable, M2P_STRICT) == 0);
    printf("with m2p_strict:\n");
    tables();
    other_vcpu();
}
