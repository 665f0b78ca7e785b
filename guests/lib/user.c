/* User mode: its own L4 table, one page each of code, data and stack, and a way in and out. */
#include "guest.h"

u64 user_l4;
struct regs user_exit;
u64 user_exit_cr2;
static u64 back_in_kernel[8];
static char *code_page;
static char kernel_entry_stack[8192] __attribute__((aligned(16)));

void user_init(void)
{
    static const u64 places[] = {USER_CODE, USER_DATA, USER_STACK_TOP - PAGE_SIZE};
    if (user_l4)
        return;
    user_l4 = (u64)table_alloc();
    for (u64 i = 0; i < ARRAY_SIZE(places); i++) {
        void *page = page_alloc();
        if (places[i] == USER_CODE)
            code_page = page;
        u64 pte = mfn_of(page) << 12 | PTE_P | PTE_RW | PTE_US;
        map_in(kernel_l4, places[i], pte);
        if (!((u64 *)user_l4)[0])
            check(set_entry((u64 *)user_l4, *(u64 *)kernel_l4) == 0); /* slot 0 is common to both */
    }
    check(mmuext(MMUEXT_PIN_L4_TABLE, mfn_of((void *)user_l4), 0) == 0);
    check(mmuext(MMUEXT_NEW_USER_BASEPTR, mfn_of((void *)user_l4), 0) == 0);
    check(xen_stack_switch(FLAT_KERNEL_SS, (u64)kernel_entry_stack + sizeof(kernel_entry_stack)) == 0);
}

void user_frame(struct regs *r)
{
    memset(r, 0, sizeof(*r));
    r->rip = USER_CODE;
    r->cs = FLAT_USER_CS;
    r->rflags = X86_EFLAGS_IF;
    r->rsp = USER_STACK_TOP;
    r->ss = FLAT_USER_SS;
}

static void leave_user(struct regs *r)
{
    user_exit = *r;
    user_exit_cr2 = vcpu0->cr2;
    load_context(back_in_kernel);
}

int run_user(const void *code, u64 size, struct regs *registers)
{
    static trap_handler *kept[ARRAY_SIZE(handlers)];
    for (u64 i = 0; i < PAGE_SIZE; i += 2)
        *(u16 *)(code_page + i) = 0x0b0f; /* ud2: code that goes on too far says so */
    memcpy(code_page, code, size);
    memcpy(kept, handlers, sizeof(kept));
    for (u64 i = 0; i < ARRAY_SIZE(handlers); i++)
        if (!handlers[i])
            handlers[i] = leave_user;
    if (!save_context(back_in_kernel))
        resume(registers);
    memcpy(handlers, kept, sizeof(kept));
    events_mask();
    return (int)user_exit.vector;
}
