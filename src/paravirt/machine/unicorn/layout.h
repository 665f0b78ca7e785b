/* Private numbers of libunicorn 2.1.4 (x86-64 Linux build), read off the headers of its source distribution.
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PARAVIRT_UNICORN_LAYOUT_H
#define PARAVIRT_UNICORN_LAYOUT_H

/* public numbers of unicorn.h and x86.h */
#define UC_VERSION 0x020104ffu
enum {
    UC_ARCH_X86 = 4, UC_MODE_64 = 8,
    UC_HOOK_INTR = 1, UC_HOOK_INSN = 2, UC_HOOK_BLOCK = 8, UC_HOOK_INSN_INVALID = 1 << 14,
    UC_X86_INS_CPUID = 113, UC_X86_INS_IN = 218, UC_X86_INS_OUT = 500, UC_X86_INS_RDTSC = 608,
    UC_X86_INS_RDTSCP = 609, UC_X86_INS_SYSCALL = 699, UC_X86_INS_SYSENTER = 700,
    UC_X86_REG_FPCW = 246, UC_X86_REG_FPTAG = 247, UC_X86_REG_MXCSR = 249,
    UC_CTL_ENABLE_EXITS = 0x44000004, UC_CTL_SET_CODE_BUFFER = 0x4400000d
};

/* struct uc_struct */
enum { UC_CPU = 440, UC_TCG_CTX = 768, UC_STOP_REQUEST = 1389, UC_QUIT_REQUEST = 1390, UC_INVALID_ERROR = 1424,
       UC_NO_EXIT_REQUEST = 2034, UC_NESTED_LEVEL = 14840 };

/* CPUState, and the X86CPU around it */
enum { CPU_EXIT_REQUEST = 21, CPU_ENV_PTR = 296, CPU_ICOUNT_DECR_PTR = 304, CPU_HALTED = 33176,
       CPU_EXCEPTION_INDEX = 33184, CPU_TCG_EXIT_REQ = 33208, X86CPU_ICOUNT_DECR = 35392, X86CPU_ENV = 35408 };

/* CPUX86State */
enum {
    ENV_REGS = 0, ENV_EIP = 128, ENV_EFLAGS = 136, ENV_CC_DST = 144, ENV_CC_SRC = 152, ENV_CC_OP = 168,
    ENV_DF = 172, ENV_HFLAGS = 176, ENV_SEGS = 184, ENV_LDT = 328, ENV_GDT = 376, ENV_CR = 424, ENV_EFER = 592,
    ENV_FPSTT = 604, ENV_FPUS = 608, ENV_FPUC = 610, ENV_FPTAGS = 612, ENV_FPREGS = 624, ENV_FPIP = 760,
    ENV_FPDP = 768, ENV_MXCSR = 816, ENV_XMM = 824, ENV_TSC_AUX = 4896, ENV_ERROR_CODE = 5384,
    ENV_EXCEPTION_IS_INT = 5388, ENV_DR = 5400, ENV_OLD_EXCEPTION = 5496,
    ENV_FPU_BEGIN = ENV_FPSTT, ENV_FPU_END = 3264, ZMM_BYTES = 64
};

/* SegmentCache */
enum { SEG_SELECTOR = 0, SEG_BASE = 8, SEG_LIMIT = 16, SEG_FLAGS = 20, SEG_BYTES = 24 };

/* env->hflags, descriptor flags, condition codes, translation caches */
enum {
    HF_CS32 = 1 << 4, HF_SS32 = 1 << 5, HF_ADDSEG = 1 << 6, HF_PE = 1 << 7, HF_MP = 1 << 9, HF_TS = 1 << 11,
    HF_LMA = 1 << 14, HF_CS64 = 1 << 15, HF_OSFXSR = 1 << 22,
    DESC_L = 1 << 21, DESC_B = 1 << 22,
    CC_MASK = 0x8d5, CC_OP_EFLAGS = 1,
    MMU_USER_INDEX = 1, MMU_SUPERVISOR_INDEX = 2, INSTRUCTION_FETCH = 2,
    MMU_USER = 1 << 1, MMU_SUPERVISOR = 1 << 2 | 1 << 0, ALL_MMU = 7
};

/* the code generator: TCGContext.cpu_env, opcodes, TCGLabel */
enum { TCG_CPU_ENV = 39152, TCG_OP_SET_LABEL = 1, TCG_OP_LD_I32 = 13, TCG_COND_LT = 2, TCG_TYPE_I32 = 0,
       TCG_LABEL_PRESENT = 1, TB_EXIT_REQUESTED = 3 };

/* architectural control bits */
#define CR0_PE 1u
#define CR0_MP 2u
#define CR0_ET 0x10u
#define CR0_NE 0x20u
#define CR0_WP 0x10000u
#define CR0_AM 0x40000u
#define CR0_PG 0x80000000u
enum { CR4_PAE = 1 << 5, CR4_PGE = 1 << 7, CR4_OSFXSR = 1 << 9, CR4_OSXMMEXCPT = 1 << 10 };
enum { EFER_SCE = 1, EFER_LME = 1 << 8, EFER_LMA = 1 << 10, EFER_NXE = 1 << 11 };
#define NON_CANONICAL 0x8000000000000000ull

#endif
