/* What VCPUOP_initialise is given for another vcpu of this kernel. */
#include "guest.h"

void vcpu_context(struct vcpu_guest_context *context, void (*entry)(void), char *stack, u64 size)
{
    memset(context, 0, sizeof(*context));
    context->flags = VGCF_in_kernel;
    context->user_regs.rip = (u64)entry;
    context->user_regs.rsp = (u64)stack + size - 8;
    context->user_regs.cs = FLAT_KERNEL_CS;
    context->user_regs.ss = FLAT_KERNEL_SS;
    context->kernel_ss = FLAT_KERNEL_SS;
    context->kernel_sp = (u64)stack + size;
    context->ctrlreg[3] = mfn_of((void *)kernel_l4) << 12;
}

void vcpu_takes_traps(struct vcpu_guest_context *context, u8 first, u8 last, u8 flags)
{
    for (u8 vector = first; vector <= last; vector++)
        context->trap_ctxt[vector] = (struct trap_info){vector, flags, FLAT_KERNEL_CS, TRAP_STUB((u64)vector)};
}

void vcpu_takes_callbacks(struct vcpu_guest_context *context)
{
    context->event_callback_eip = (u64)event_callback;
    context->failsafe_callback_eip = (u64)failsafe_callback;
    context->syscall_callback_eip = (u64)syscall_callback;
}
