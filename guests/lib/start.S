/*
 * Where a kernel begins: the ELF notes that tell the domain builder what it is, the entry point, and
 * the stubs through which Xen enters the kernel again (exceptions, events, system calls of user mode).
 *
 * A kernel chooses by preprocessor definitions (file `flags` beside its sources):
 *   USE_HYPERCALL_PAGE  ask for a hypercall page and call it, instead of executing SYSCALL
 *   NOTE_INIT_P2M       ask for the frame list outside the initial mapping, at this address
 *   NOTE_MOD_START_PFN  ask for the ramdisk outside the initial mapping
 */
#include "xen.h"

#define VIRT_BASE 0xffffffff80000000

        .macro note_long type, value
        .p2align 2
        .long   4, 8, \type
        .asciz  "Xen"
        .quad   \value
        .endm

        .macro note_text type, text:vararg
        .p2align 2
        .long   4, 8902f - 8901f, \type
        .asciz  "Xen"
8901:   .asciz  \text
8902:   .p2align 2
        .endm

        .section .note.Xen, "a", @note
        note_text XEN_ELFNOTE_GUEST_OS, "paravirt-test"
        note_text XEN_ELFNOTE_GUEST_VERSION, "1"
        note_text XEN_ELFNOTE_XEN_VERSION, "xen-3.0"
        note_text XEN_ELFNOTE_LOADER, "generic"
        note_text XEN_ELFNOTE_PAE_MODE, "yes"
        note_text XEN_ELFNOTE_FEATURES, "!writable_page_tables|pae_pgdir_above_4gb"
        note_long XEN_ELFNOTE_VIRT_BASE, VIRT_BASE
        note_long XEN_ELFNOTE_ENTRY, _start
#ifdef USE_HYPERCALL_PAGE
        note_long XEN_ELFNOTE_HYPERCALL_PAGE, hypercall_page
#endif
#ifdef NOTE_INIT_P2M
        note_long XEN_ELFNOTE_INIT_P2M, NOTE_INIT_P2M
#endif
#ifdef NOTE_MOD_START_PFN
        note_long XEN_ELFNOTE_MOD_START_PFN, 1
#endif
#ifdef NOTE_SUPPORTED_FEATURES
        note_long XEN_ELFNOTE_SUPPORTED_FEATURES, NOTE_SUPPORTED_FEATURES
#endif

        .text
        .globl  _start
_start:                         /* rsi: start_info; rsp: the boot stack, soon left behind */
        movq    %rsp, boot_rsp(%rip)
        pushfq
        popq    boot_rflags(%rip)
        cld
        leaq    boot_stack_top(%rip), %rsp
        movq    %rsi, %rdi
        call    guest_start
        ud2

#ifdef USE_HYPERCALL_PAGE
        .p2align 12
        .globl  hypercall_page
hypercall_page:
        .fill   4096, 1, 0x90
#endif

/* Leave through the iret hypercall. The stack holds its flags, then what the processor's own iret takes; on
   top belong the three registers that SYSCALL destroys, which the hypercall page's stub pushes by itself. */
        .macro hypercall_iret
#ifdef USE_HYPERCALL_PAGE
        jmp     hypercall_page + __HYPERVISOR_iret * 32
#else
        pushq   %rcx
        pushq   %r11
        pushq   %rax
        movl    $__HYPERVISOR_iret, %eax
        syscall
#endif
        ud2
        .endm

/* Every stub has the same size, so that stub N is trap_stubs + N * 16. The bounce frame begins with rcx
   and r11; below them is what the processor would have pushed. */
        .text
        .p2align 4
        .globl  trap_stubs
trap_stubs:
        .set    vector, 0
        .rept   256
        .p2align 4
        popq    %rcx
        popq    %r11
        .if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17)
        pushq   $0
        .endif
        pushq   $vector
        jmp     save_and_dispatch
        .set    vector, vector + 1
        .endr

        .macro callback name, number
        .globl  \name
\name:
        popq    %rcx
        popq    %r11
        pushq   $0
        pushq   $\number
        jmp     save_and_dispatch
        .endm

        callback event_callback, 0x100
        callback syscall_callback, 0x101
        callback syscall32_callback, 0x102
        callback sysenter_callback, 0x103
        callback nmi_callback, 0x104

        .globl  failsafe_callback
failsafe_callback:              /* rcx, r11, then ds, es, fs and gs */
        popq    %rcx
        popq    %r11
        popq    failsafe_selectors(%rip)
        popq    failsafe_selectors + 8(%rip)
        popq    failsafe_selectors + 16(%rip)
        popq    failsafe_selectors + 24(%rip)
        pushq   $0
        pushq   $0x105
        jmp     save_and_dispatch

save_and_dispatch:
        pushq   %rdi
        pushq   %rsi
        pushq   %rdx
        pushq   %rcx
        pushq   %rax
        pushq   %r8
        pushq   %r9
        pushq   %r10
        pushq   %r11
        pushq   %rbx
        pushq   %rbp
        pushq   %r12
        pushq   %r13
        pushq   %r14
        pushq   %r15
        cld
        movq    %rsp, %rdi
        movq    %rsp, %rbp
        andq    $-16, %rsp
        call    trap_entry
        movq    %rbp, %rsp
        .globl  restore_and_iret
restore_and_iret:
        popq    %r15
        popq    %r14
        popq    %r13
        popq    %r12
        popq    %rbp
        popq    %rbx
        popq    %r11
        popq    %r10
        popq    %r9
        popq    %r8
        popq    %rax
        popq    %rcx
        popq    %rdx
        popq    %rsi
        popq    %rdi
        addq    $8, %rsp        /* the vector; the word after it (error code) is the iret's flags now */
        hypercall_iret

/* void resume(const struct regs *): become what the frame says. */
        .globl  resume
resume:
        movq    %rdi, %rsp
        jmp     restore_and_iret

/* int save_context(u64 ctx[8]): returns 0, and once more 1 after load_context(ctx). */
        .globl  save_context
save_context:
        movq    %rbx, (%rdi)
        movq    %rbp, 8(%rdi)
        movq    %r12, 16(%rdi)
        movq    %r13, 24(%rdi)
        movq    %r14, 32(%rdi)
        movq    %r15, 40(%rdi)
        leaq    8(%rsp), %rax
        movq    %rax, 48(%rdi)
        movq    (%rsp), %rax
        movq    %rax, 56(%rdi)
        xorl    %eax, %eax
        ret

        .globl  load_context
load_context:
        movq    (%rdi), %rbx
        movq    8(%rdi), %rbp
        movq    16(%rdi), %r12
        movq    24(%rdi), %r13
        movq    32(%rdi), %r14
        movq    40(%rdi), %r15
        movq    48(%rdi), %rsp
        movl    $1, %eax
        jmp     *56(%rdi)

        .section .note.GNU-stack, "", @progbits

        .bss
        .p2align 12
        .globl  boot_stack, boot_stack_top
boot_stack:
        .skip   16384
boot_stack_top:
        .globl  boot_rsp, boot_rflags, failsafe_selectors
boot_rsp:
        .skip   8
boot_rflags:
        .skip   8
failsafe_selectors:
        .skip   32
