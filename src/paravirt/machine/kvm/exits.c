/* What an end of KVM_RUN means: which stub stopped, and what it says of the guest.
 *
 * Some hosts report a few things otherwise than a processor does; where it can be known what happened, by the guest's
 * page tables or by the instruction, it is put right here.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "run.h"

#include <sys/ioctl.h>

#define LONG_MODE (1u << 21)
#define MAX_FAULT_TRIES 16

static const uint32_t HAS_ERROR_CODE = 1u << 8 | 1u << 10 | 1u << 11 | 1u << 12 | 1u << 13 | 1u << 14 | 1u << 17;

/* --- a look at the instruction --------------------------------------------------------------------------------- */

static int guest_byte(const struct kvm_machine *m, const struct cpu *cpu, uint64_t address, uint8_t *byte)
{
    uint64_t physical;
    uint32_t refused;

    if (!kvm_walk(m, cpu, address, &physical, &refused))
        return 0;
    *byte = m->memory[physical];
    return 1;
}

/* Whether `count` bytes of code at an address are these. */
static int guest_code_is(const struct kvm_machine *m, const struct cpu *cpu, uint64_t address, const char *bytes,
                         unsigned count)
{
    unsigned i;
    uint8_t byte;

    for (i = 0; i < count; i++)
        if (!guest_byte(m, cpu, address + i, &byte) || byte != (uint8_t)bytes[i])
            return 0;
    return 1;
}

/* --- exceptions ------------------------------------------------------------------------------------------------ */

/* `int n`, whose gate is not there: #GP with the gate's number, or #UD on a host that does not know the instruction.
 * rip can be behind it when the host had to look into its own tables in mid-delivery. */
static int take_software_interrupt(const struct kvm_machine *m, struct cpu *cpu, struct cpu_exit *exit)
{
    uint8_t opcode, number;
    unsigned behind;

    for (behind = 0; behind <= 2; behind += 2) {
        if (!guest_byte(m, cpu, cpu->rip - behind, &opcode) || opcode != 0xcd ||
            !guest_byte(m, cpu, cpu->rip - behind + 1, &number))
            continue;
        if (exit->vector == 13 && exit->error_code >> 3 != number)
            continue;
        *exit = (struct cpu_exit){EXIT_SOFTINT, number, 0, 0};
        cpu->rip += 2 - behind;
        cpu->rflags &= ~RFLAGS_RF; /* a fault sets it in the saved flags, an interrupt does not */
        return 1;
    }
    return 0;
}

/* A page fault where the tables allow the access: another vcpu has made it so meanwhile, and it is tried again.  Not for
 * ever: the host is not known to be right. */
static int try_again(struct kvm_state *s, const struct cpu *cpu, uint64_t address)
{
    if (s->fault_rip != cpu->rip || s->fault_address != address) {
        s->fault_rip = cpu->rip;
        s->fault_address = address;
        s->fault_tries = 0;
    }
    return ++s->fault_tries <= MAX_FAULT_TRIES;
}

/* 0: there was none, and the access is to be tried again. */
static int take_page_fault(struct kvm_state *s, struct cpu *cpu, struct cpu_exit *exit)
{
    const struct kvm_machine *m = s->machine;
    uint64_t physical;
    uint32_t refused;

    /* The guest's tables were checked; where a host uses that bit, it means the host's own. */
    exit->error_code &= ~PF_RESERVED;
    if (!m->findings.shadow_tables || m->findings.reload_repairs)
        return 1; /* the error code is the processor's, or comes from the guest's tables */
    /* What is not in the shadow yet is no missing page; and the host may have pages of its own where the guest has none. */
    exit->error_code &= ~PF_PRESENT;
    if (kvm_walk(m, cpu, exit->address, &physical, &refused)) {
        exit->error_code |= PF_PRESENT;
        if (!(refused & (exit->error_code | PF_USER)) && try_again(s, cpu, exit->address))
            return 0;
    }
    /* No page can be missing where there are no addresses: the code ran into the hole between the halves. */
    if (exit->error_code & PF_FETCH && (uint64_t)((int64_t)(exit->address << 16) >> 16) != exit->address)
        *exit = (struct cpu_exit){EXIT_EXCEPTION, 13, 0, 0};
    return 1;
}

static void take_undefined(const struct kvm_machine *m, struct cpu *cpu, struct cpu_exit *exit)
{
    if (!(cpu->seg[SEG_CS].flags & LONG_MODE) && guest_code_is(m, cpu, cpu->rip, "\x0f\x05", 2)) {
        /* Intel's processors know `syscall` in 64-bit code only. */
        *exit = (struct cpu_exit){EXIT_SYSCALL, 0, 0, 0};
        cpu->rip += 2;
        cpu->rflags &= ~RFLAGS_RF;
    } else {
        (void)take_software_interrupt(m, cpu, exit);
    }
}

static void take_protection(const struct kvm_machine *m, struct cpu *cpu, struct cpu_exit *exit)
{
    if ((exit->error_code & 7) == 2 && take_software_interrupt(m, cpu, exit))
        return;
    if (exit->error_code == 0 && (guest_code_is(m, cpu, cpu->rip, "\x0f\x01\xc1", 3) ||
                                  guest_code_is(m, cpu, cpu->rip, "\x0f\x01\xc8", 3) ||
                                  guest_code_is(m, cpu, cpu->rip, "\x0f\x01\xc9", 3)))
        exit->vector = 6; /* vmcall, monitor, mwait: the guest's processor does not have them */
    else if (!(exit->error_code & 3))
        exit->error_code = 0; /* a segment load: the hypervisor has the guest's descriptors, and looks at it itself */
}

/* A breakpoint or overflow has arrived: its number stands for the next from now on (run.c, state_is_whole). */
static void forget_exception(struct kvm_state *s)
{
    struct kvm_vcpu_events events;

    if (ioctl(s->fd, KVM_GET_VCPU_EVENTS, &events) != 0)
        return;
    events.exception.nr = 0;
    (void)ioctl(s->fd, KVM_SET_VCPU_EVENTS, &events);
}

/* An exception: what the processor pushed is on the stub's stack.  0: there was none. */
static int take_exception(struct kvm_state *s, struct cpu *cpu, unsigned vector, struct cpu_exit *exit)
{
    const struct kvm_machine *m = s->machine;
    const uint64_t *frame = (const uint64_t *)(s->page + STACK_TOP) - 5;
    enum system_call_stage stage;

    kvm_to_gpr(&s->run->s.regs.regs, cpu->gpr);
    cpu->rip = frame[0];
    cpu->rflags = (frame[2] & RFLAGS_GUEST) | RFLAGS_ALWAYS;
    cpu->gpr[GPR_RSP] = frame[3];
    if (frame[1] % 4 != 3) {
        *exit = kvm_gives_up("an exception in the engine's own code", vector);
        return 1;
    }
    kvm_read_segments(s, cpu);
    kvm_read_code_segment(s, cpu, (uint16_t)frame[1], (uint16_t)frame[4]);
    *exit = (struct cpu_exit){EXIT_EXCEPTION, vector, 0, 0};
    stage = kvm_leave_system_call(s, cpu, frame[0]);
    if (stage == SYSTEM_CALL_RETURNED)
        return 0;
    if (stage == SYSTEM_CALL_BEGUN) {
        exit->kind = EXIT_SYSCALL; /* a shortcut's end: its way is the common one */
        return 1;
    }
    if (HAS_ERROR_CODE >> vector & 1)
        exit->error_code = (uint32_t)frame[-1];
    if (vector == 14) {
        exit->address = s->run->s.regs.sregs.cr2;
        return take_page_fault(s, cpu, exit);
    } else if (vector == 1) {
        exit->address = kvm_debug_status(s, cpu);
        if (m->findings.icebp_is_fault && exit->address == 0 && guest_code_is(m, cpu, cpu->rip, "\xf1", 1))
            cpu->rip += 1;
    } else if (vector == 3 || vector == 4) {
        exit->kind = EXIT_SOFTINT;
        cpu->rflags &= ~RFLAGS_RF;
        forget_exception(s);
    } else if (vector == 6) {
        take_undefined(m, cpu, exit);
    } else if (vector == 13) {
        take_protection(m, cpu, exit);
    } else if ((vector == 11 || vector == 12) && exit->error_code != 0) {
        /* Also a segment load, by descriptors that are not the guest's. */
        exit->vector = 13;
        exit->error_code = 0;
    }
    return 1;
}

/* --- other stops ----------------------------------------------------------------------------------------------- */

static void take_entry(struct kvm_state *s, struct cpu *cpu, int kind, int long_mode, struct cpu_exit *exit)
{
    const struct kvm_regs *regs = &s->run->s.regs.regs;

    kvm_to_gpr(regs, cpu->gpr);
    kvm_read_segments(s, cpu);
    if (kind == EXIT_SYSCALL) {
        kvm_set_code_segment(cpu, long_mode);
        cpu->rip = regs->rcx;
        cpu->rflags = (regs->r11 & RFLAGS_GUEST) | RFLAGS_ALWAYS;
    } else {
        cpu->rip = 0;
        cpu->rflags = (regs->rflags & RFLAGS_GUEST) | RFLAGS_ALWAYS;
    }
    *exit = (struct cpu_exit){kind, 0, 0, 0};
}

void kvm_take_plain(struct kvm_state *s, struct cpu *cpu)
{
    const struct kvm_regs *regs = &s->run->s.regs.regs;
    const struct kvm_sregs *sregs = &s->run->s.regs.sregs;

    kvm_to_gpr(regs, cpu->gpr);
    cpu->rip = regs->rip;
    cpu->rflags = (regs->rflags & RFLAGS_GUEST) | RFLAGS_ALWAYS;
    kvm_read_segments(s, cpu);
    kvm_read_code_segment(s, cpu, sregs->cs.selector, sregs->ss.selector);
    if (kvm_leave_system_call(s, cpu, regs->rip) == SYSTEM_CALL_BEGUN)
        cpu->rip -= 2; /* it is made again, and nobody sees the stub */
}

struct cpu_exit kvm_gives_up(const char *why, uint32_t number)
{
    return (struct cpu_exit){.kind = EXIT_ENGINE, .vector = number, .why = why};
}

/* An end that no guest code brings about by itself: the host cannot go on with it. */
void kvm_take_failure(struct kvm_state *s, struct cpu *cpu, struct cpu_exit *exit)
{
    const struct kvm_run *run = s->run;

    kvm_take_plain(s, cpu);
    switch (run->exit_reason) {
    case KVM_EXIT_SHUTDOWN:
        *exit = kvm_gives_up("its processor shut down: an exception could not be delivered", run->exit_reason);
        break;
    case KVM_EXIT_FAIL_ENTRY:
        *exit = kvm_gives_up("the host's processor refused its state",
                             (uint32_t)run->fail_entry.hardware_entry_failure_reason);
        break;
    case KVM_EXIT_INTERNAL_ERROR:
        *exit = kvm_gives_up("the host's KVM cannot go on with it", run->internal.suberror);
        break;
    default:
        *exit = kvm_gives_up("the host's KVM stopped it, as it should not", run->exit_reason);
    }
}

static int is_at_stub(const struct kvm_state *s, uint64_t stub)
{
    return s->run->s.regs.regs.rip - trampoline_address(PAGE_STUBS) - stub < STUB_BYTES &&
           s->run->s.regs.sregs.ss.dpl == 0;
}

int kvm_has_only_repaired(const struct kvm_state *s)
{
    return is_at_stub(s, STUB_REPAIRED);
}

int kvm_has_only_returned(const struct kvm_state *s)
{
    return is_at_stub(s, STUB_RETURNED);
}

/* Guest code wrote to the port that is open for the stubs: to it, no port is.  The host has carried the instruction out,
 * and is behind it, or in the middle of those that repeat; where it began is seen from its end.  Prefixes that change
 * nothing are not looked for: they look like the end of the instruction before. */
static void refuse_output(const struct kvm_state *s, struct cpu *cpu, struct cpu_exit *exit)
{
    const struct kvm_machine *m = s->machine;
    uint64_t step = cpu->rflags & RFLAGS_DF ? (uint64_t)-1 : 1;
    unsigned length = 1, string = 0, repeated = 0;
    uint8_t written = ((const uint8_t *)s->run)[s->run->io.data_offset], there;

    *exit = (struct cpu_exit){EXIT_EXCEPTION, 13, 0, 0};
    if (!m->findings.rip_after_out)
        return;
    if (cpu->gpr[GPR_RCX] != 0 && guest_code_is(m, cpu, cpu->rip, "\xf3\x6e", 2) &&
        guest_byte(m, cpu, cpu->gpr[GPR_RSI] - step, &there) && there == written) {
        string = repeated = 1;
        length = 0;
    } else if (guest_code_is(m, cpu, cpu->rip - 2, "\xe6\x10", 2)) {
        length = 2;
    } else if (guest_code_is(m, cpu, cpu->rip - 1, "\x6e", 1)) {
        string = 1;
        repeated = cpu->gpr[GPR_RCX] == 0 && guest_code_is(m, cpu, cpu->rip - 2, "\xf3", 1);
        length += repeated;
    }
    cpu->rip -= length;
    cpu->gpr[GPR_RSI] -= string * step;
    cpu->gpr[GPR_RCX] += repeated;
}

/* It read from that port.  KVM is in the middle of the instruction, and ends it as it is entered again; what that does to
 * registers is loaded over. */
void kvm_refuse_input(struct kvm_state *s, struct cpu *cpu, struct cpu_exit *exit)
{
    kvm_take_plain(s, cpu);
    s->run->immediate_exit = 1;
    (void)ioctl(s->fd, KVM_RUN, 0);
    *exit = (struct cpu_exit){EXIT_EXCEPTION, 13, 0, 0};
}

/* KVM_EXIT_IO: which stub it was, if it was one. */
int kvm_take_io(struct kvm_state *s, struct cpu *cpu, struct cpu_exit *exit)
{
    const struct kvm_findings *host = &s->machine->findings;
    uint64_t offset = s->run->s.regs.regs.rip - trampoline_address(PAGE_STUBS);
    int ring3 = s->run->s.regs.sregs.ss.dpl == 3;

    if (offset < STUB_EXCEPTIONS + 32 * STUB_BYTES && !ring3)
        return take_exception(s, cpu, (unsigned)(offset / STUB_BYTES), exit);
    if (offset - STUB_DIVIDE < STUB_DIVIDE_BYTES && !ring3)
        return take_exception(s, cpu, 0, exit);
    if (offset - STUB_SYSCALL < 2 * STUB_BYTES && (!ring3 || host->user_stubs))
        take_entry(s, cpu, EXIT_SYSCALL, offset < STUB_SYSCALL32, exit);
    else if (offset - STUB_SYSENTER < STUB_BYTES && (!ring3 || host->user_stubs))
        take_entry(s, cpu, EXIT_SYSENTER, 0, exit);
    else {
        kvm_take_plain(s, cpu);
        refuse_output(s, cpu, exit);
    }
    return 1;
}
