/* A vcpu's registers on their way into and out of KVM's record.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "run.h"

#include <string.h>
#include <sys/ioctl.h>

#define CR0_TS 8ull
#define CODE64_FLAGS 0x00a0fb00u
#define CODE32_FLAGS 0x00c0fb00u
#define LONG_MODE (1u << 21)
#define DR6_CLEAR 0xffff0ff0ull
#define DR6_CAUSES 0xe00full
#define DR6_SINGLE_STEP 0x4000ull
#define DR7_ENABLED 0xffull
#define DR7_ALWAYS 0x400ull
#define DATA_FLAGS 0x00c0f300u

void kvm_to_gpr(const struct kvm_regs *r, uint64_t *gpr)
{
    gpr[GPR_RAX] = r->rax; gpr[GPR_RCX] = r->rcx; gpr[GPR_RDX] = r->rdx; gpr[GPR_RBX] = r->rbx;
    gpr[GPR_RSP] = r->rsp; gpr[GPR_RBP] = r->rbp; gpr[GPR_RSI] = r->rsi; gpr[GPR_RDI] = r->rdi;
    gpr[GPR_R8] = r->r8; gpr[GPR_R9] = r->r9; gpr[GPR_R10] = r->r10; gpr[GPR_R11] = r->r11;
    gpr[GPR_R12] = r->r12; gpr[GPR_R13] = r->r13; gpr[GPR_R14] = r->r14; gpr[GPR_R15] = r->r15;
}

static void from_gpr(struct kvm_regs *r, const uint64_t *gpr)
{
    r->rax = gpr[GPR_RAX]; r->rcx = gpr[GPR_RCX]; r->rdx = gpr[GPR_RDX]; r->rbx = gpr[GPR_RBX];
    r->rsp = gpr[GPR_RSP]; r->rbp = gpr[GPR_RBP]; r->rsi = gpr[GPR_RSI]; r->rdi = gpr[GPR_RDI];
    r->r8 = gpr[GPR_R8]; r->r9 = gpr[GPR_R9]; r->r10 = gpr[GPR_R10]; r->r11 = gpr[GPR_R11];
    r->r12 = gpr[GPR_R12]; r->r13 = gpr[GPR_R13]; r->r14 = gpr[GPR_R14]; r->r15 = gpr[GPR_R15];
}

static struct kvm_segment to_kvm_segment(const struct cpu_seg *seg)
{
    struct kvm_segment s;

    memset(&s, 0, sizeof(s));
    s.base = seg->base;
    s.selector = seg->selector;
    if (!(seg->flags & 0x8000)) {
        s.unusable = 1;
        return s;
    }
    s.limit = seg->limit;
    s.type = (seg->flags >> 8 & 15) | 1;
    s.s = seg->flags >> 12 & 1;
    s.dpl = 3;
    s.present = 1;
    s.avl = seg->flags >> 20 & 1;
    s.l = seg->flags >> 21 & 1;
    s.db = seg->flags >> 22 & 1;
    s.g = seg->flags >> 23 & 1;
    return s;
}

static struct kvm_segment ring0_segment(uint16_t selector, uint8_t type)
{
    struct kvm_segment s;

    memset(&s, 0, sizeof(s));
    s.limit = 0xffffffff;
    s.selector = selector;
    s.type = type;
    s.s = s.present = s.g = 1;
    s.l = type == 11;
    s.db = type != 11;
    return s;
}

static uint32_t segment_flags(const struct kvm_segment *s)
{
    if (s->unusable)
        return 0;
    return (uint32_t)s->type << 8 | (uint32_t)s->s << 12 | (uint32_t)s->dpl << 13 | 0x8000u | (uint32_t)s->avl << 20 |
           (uint32_t)s->l << 21 | (uint32_t)s->db << 22 | (uint32_t)s->g << 23;
}

/* Those that guest code can change without help: to null selectors, and to what Xen's table offers. */
void kvm_read_segments(const struct kvm_state *s, struct cpu *cpu)
{
    const struct kvm_sregs *sregs = &s->run->s.regs.sregs;
    const struct kvm_segment *theirs[6] = {&sregs->es, NULL, NULL, &sregs->ds, &sregs->fs, &sregs->gs};
    int i;

    cpu->seg[SEG_FS].base = sregs->fs.base;
    cpu->seg[SEG_GS].base = sregs->gs.base;
    if (!s->machine->findings.real_selectors) {
        /* The processor cannot hold the guest's selectors there, and the host does not say when guest code loads null. */
        for (i = 0; i < 6; i++)
            if (theirs[i] != NULL)
                cpu->seg[i].selector = 0;
        return;
    }
    for (i = 0; i < 6; i++) {
        if (theirs[i] == NULL || theirs[i]->selector == cpu->seg[i].selector)
            continue;
        cpu->seg[i].selector = theirs[i]->selector;
        cpu->seg[i].base = theirs[i]->base;
        cpu->seg[i].limit = theirs[i]->limit;
        cpu->seg[i].flags = segment_flags(theirs[i]);
    }
}

void kvm_set_code_segment(struct cpu *cpu, int long_mode)
{
    struct cpu_seg *cs = &cpu->seg[SEG_CS];

    if (!(cs->flags & LONG_MODE) == !long_mode)
        return;
    cs->selector = long_mode ? 0xe033 : 0xe023;
    cs->flags = long_mode ? CODE64_FLAGS : CODE32_FLAGS;
    cs->limit = 0xffffffff;
    cs->base = 0;
}

/* A far transfer to one of Xen's code segments needs no help of ours. */
void kvm_read_code_segment(const struct kvm_state *s, struct cpu *cpu, uint16_t cs, uint16_t ss)
{
    if (!s->machine->findings.real_selectors) {
        if (cs != cpu->seg[SEG_CS].selector) /* or it is what was loaded, maybe by a descriptor of the guest's */
            kvm_set_code_segment(cpu, cs != 0xe023); /* such a host says that much, and no more */
        return;
    }
    if (cs != cpu->seg[SEG_CS].selector && (cs == 0xe033 || cs == 0xe023)) {
        kvm_set_code_segment(cpu, cs == 0xe033);
        cpu->seg[SEG_CS].selector = cs;
    }
    if (ss != cpu->seg[SEG_SS].selector && ss == 0xe02b)
        cpu->seg[SEG_SS] = (struct cpu_seg){.selector = ss, .flags = DATA_FLAGS, .limit = 0xffffffff};
}

/* --- breakpoints --------------------------------------------------------------------------------------------- */

/* Nothing, as long as no breakpoint is, or was, enabled. */
static void load_breakpoints(struct kvm_state *s, const struct cpu *cpu)
{
    struct kvm_debugregs debug;
    uint64_t control = cpu->dr[7] & DR7_ENABLED ? cpu->dr[7] : 0;

    if (control == 0 && s->breakpoints[4] == 0)
        return;
    if (control == s->breakpoints[4] && memcmp(s->breakpoints, cpu->dr, 4 * sizeof(uint64_t)) == 0)
        return;
    memset(&debug, 0, sizeof(debug));
    memcpy(debug.db, cpu->dr, sizeof(debug.db));
    debug.dr6 = DR6_CLEAR;
    debug.dr7 = control | DR7_ALWAYS;
    if (ioctl(s->fd, KVM_SET_DEBUGREGS, &debug) != 0)
        return;
    memcpy(s->breakpoints, cpu->dr, 4 * sizeof(uint64_t));
    s->breakpoints[4] = control;
}

uint64_t kvm_debug_status(struct kvm_state *s, const struct cpu *cpu)
{
    struct kvm_debugregs debug;
    uint64_t status = cpu->rflags & RFLAGS_TF ? DR6_SINGLE_STEP : 0;

    if (s->breakpoints[4] == 0 || ioctl(s->fd, KVM_GET_DEBUGREGS, &debug) != 0)
        return status;
    status = debug.dr6 & DR6_CAUSES;
    debug.dr6 = DR6_CLEAR; /* the processor only adds to it */
    (void)ioctl(s->fd, KVM_SET_DEBUGREGS, &debug);
    return status;
}

/* --- whole entries --------------------------------------------------------------------------------------------- */

/* Enter the guest at once: at CPL 3 with everything in place. */
void kvm_load_guest(struct kvm_state *s, struct cpu *cpu)
{
    struct kvm_regs *regs = &s->run->s.regs.regs;
    struct kvm_sregs *sregs = &s->run->s.regs.sregs;

    from_gpr(regs, cpu->gpr);
    regs->rip = cpu->rip;
    regs->rflags = (cpu->rflags & RFLAGS_GUEST) | 0x202;
    *sregs = s->sregs;
    sregs->cr0 |= cpu->ts ? CR0_TS : 0;
    sregs->cr3 = cpu->user ? cpu->user_cr3 : cpu->kernel_cr3;
    sregs->cs = to_kvm_segment(&cpu->seg[SEG_CS]);
    sregs->ss = to_kvm_segment(&cpu->seg[SEG_SS]);
    sregs->ds = to_kvm_segment(&cpu->seg[SEG_DS]);
    sregs->es = to_kvm_segment(&cpu->seg[SEG_ES]);
    sregs->fs = to_kvm_segment(&cpu->seg[SEG_FS]);
    sregs->gs = to_kvm_segment(&cpu->seg[SEG_GS]);
    load_breakpoints(s, cpu);
    s->run->kvm_dirty_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
    cpu->segs_dirty = 0;
}

/* Whether the processor's tables have the selectors that guest code has: those that Xen offers. */
static int is_returnable(const struct kvm_sregs *sregs)
{
    return (sregs->cs.selector == 0xe033 || sregs->cs.selector == 0xe023) && sregs->ss.selector == 0xe02b;
}

/* Enter the program that repairs page tables and then returns by the frame on its stack: to the guest, or, where guest code
 * has selectors of its own, to the stub that stops: it is entered in its turn then. */
void kvm_load_repair(struct kvm_state *s)
{
    struct kvm_regs *regs = &s->run->s.regs.regs;
    struct kvm_sregs *sregs = &s->run->s.regs.sregs;
    uint64_t *frame = (uint64_t *)(s->page + STACK_TOP) - 5;
    uint64_t stack = trampoline_address(PAGE_VCPUS + PAGES_PER_VCPU * s->index) + STACK_TOP;

    if (is_returnable(sregs)) {
        frame[0] = regs->rip;
        frame[1] = sregs->cs.selector;
        frame[2] = regs->rflags;
        frame[3] = regs->rsp;
        frame[4] = sregs->ss.selector;
    } else {
        frame[0] = trampoline_address(PAGE_STUBS) + STUB_REPAIRED;
        frame[1] = SELECTOR_RING0_CODE;
        frame[2] = RFLAGS_ALWAYS;
        frame[3] = stack;
        frame[4] = SELECTOR_RING0_DATA;
    }
    regs->rip = kvm_repair_program(s);
    regs->rflags = 2;
    regs->rsp = stack - 5 * sizeof(uint64_t);
    sregs->cs = ring0_segment(SELECTOR_RING0_CODE, 11);
    sregs->ss = ring0_segment(SELECTOR_RING0_DATA, 3);
}

/* --- floating point ------------------------------------------------------------------------------------------ */

void kvm_get_fxsave(void *engine, struct cpu *cpu, uint8_t *image)
{
    struct kvm_state *s = cpu->engine_state;
    struct kvm_fpu fpu;
    int i;

    (void)engine;
    memset(image, 0, 512);
    if (ioctl(s->fd, KVM_GET_FPU, &fpu) != 0)
        return;
    memcpy(image, &fpu.fcw, 2);
    memcpy(image + 2, &fpu.fsw, 2);
    image[4] = fpu.ftwx;
    memcpy(image + 6, &fpu.last_opcode, 2);
    memcpy(image + 8, &fpu.last_ip, 8);
    memcpy(image + 16, &fpu.last_dp, 8);
    memcpy(image + 24, &fpu.mxcsr, 4);
    memset(image + 28, 0xff, 2);
    for (i = 0; i < 8; i++)
        memcpy(image + 32 + 16 * i, fpu.fpr[i], 16);
    for (i = 0; i < 16; i++)
        memcpy(image + 160 + 16 * i, fpu.xmm[i], 16);
}

void kvm_set_fxsave(void *engine, struct cpu *cpu, const uint8_t *image)
{
    struct kvm_state *s = cpu->engine_state;
    struct kvm_fpu fpu;
    int i;

    (void)engine;
    memset(&fpu, 0, sizeof(fpu));
    memcpy(&fpu.fcw, image, 2);
    memcpy(&fpu.fsw, image + 2, 2);
    fpu.ftwx = image[4];
    memcpy(&fpu.last_opcode, image + 6, 2);
    memcpy(&fpu.last_ip, image + 8, 8);
    memcpy(&fpu.last_dp, image + 16, 8);
    memcpy(&fpu.mxcsr, image + 24, 4);
    fpu.mxcsr &= 0xffbf;
    for (i = 0; i < 8; i++)
        memcpy(fpu.fpr[i], image + 32 + 16 * i, 16);
    for (i = 0; i < 16; i++)
        memcpy(fpu.xmm[i], image + 160 + 16 * i, 16);
    (void)ioctl(s->fd, KVM_SET_FPU, &fpu);
}

