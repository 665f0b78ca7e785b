/* Cheaper stop checks in translated code.
 *
 * Every translation block of libunicorn begins with a call to helper_check_exit_request, which looks whether
 * somebody wants the emulator to stop.  The call is about a quarter of the time of ordinary guest code.  QEMU
 * itself tests one word inline and branches to an exit at the block's end; this file gives that back.
 *
 * Two slots of the library's procedure linkage table (plt.c) are pointed here.  tcg_gen_callN, when asked to emit the
 * helper call, emits the test instead; and tcg_gen_exit_tb, when the block's end emits its "exit requested" exit, puts
 * the branch target before it.
 * If anything is not where it should be nothing is changed, and the helper call stays.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#define _GNU_SOURCE
#include "inline_exit.h"

#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>

#include "layout.h"
#include "plt.h"

typedef uintptr_t tcg_arg;

static struct {
    void *library;
    void *helper;
    void (*gen_call)(void *ctx, void *function, void *result, int count, void **args);
    void (*gen_exit_tb)(void *ctx, void *tb, unsigned index);
    void *(*temp_new)(void *ctx, int type, _Bool local);
    void (*temp_free)(void *ctx, void *temp);
    void (*gen_op1)(void *ctx, int op, tcg_arg a);
    void (*gen_op3)(void *ctx, int op, tcg_arg a, tcg_arg b, tcg_arg c);
    void (*gen_brcondi)(void *ctx, int condition, void *temp_handle, int32_t constant, void *label);
    void *(*new_label)(void *ctx);
} tcg;

/* The exit label of the block that this thread is translating. */
static __thread void *exit_label;

/* Whether this thread is in one of our engines: other users of the library in this process get what they know. */
static __thread _Bool ours;

static void emit_call(void *ctx, void *function, void *result, int count, void **args)
{
    char *env, *word;

    if (!ours || function != tcg.helper) {
        tcg.gen_call(ctx, function, result, count, args);
        return;
    }
    exit_label = tcg.new_label(ctx);
    env = (char *)ctx + *(uintptr_t *)((char *)ctx + TCG_CPU_ENV);
    word = tcg.temp_new(ctx, TCG_TYPE_I32, 0);
    tcg.gen_op3(ctx, TCG_OP_LD_I32, (tcg_arg)word, (tcg_arg)env, (tcg_arg)(X86CPU_ICOUNT_DECR - X86CPU_ENV));
    tcg.gen_brcondi(ctx, TCG_COND_LT, (void *)(word - (char *)ctx), 0, exit_label);
    tcg.temp_free(ctx, word);
}

static void emit_exit(void *ctx, void *tb, unsigned index)
{
    if (index == TB_EXIT_REQUESTED && exit_label != NULL) {
        *(uint32_t *)exit_label |= TCG_LABEL_PRESENT;
        tcg.gen_op1(ctx, TCG_OP_SET_LABEL, (tcg_arg)exit_label);
        exit_label = NULL;
    }
    tcg.gen_exit_tb(ctx, tb, index);
}

void inline_exit_enter(void)
{
    ours = 1;
}

void inline_exit_leave(void)
{
    ours = 0;
}

void inline_exit_checks(void *library)
{
    void **call_slot, **exit_slot;

    if (tcg.library == library)
        return;
    tcg.helper = dlsym(library, "helper_check_exit_request_x86_64");
    tcg.gen_call = (void (*)(void *, void *, void *, int, void **))dlsym(library, "tcg_gen_callN_x86_64");
    tcg.gen_exit_tb = (void (*)(void *, void *, unsigned))dlsym(library, "tcg_gen_exit_tb_x86_64");
    tcg.temp_new = (void *(*)(void *, int, _Bool))dlsym(library, "tcg_temp_new_internal_x86_64");
    tcg.temp_free = (void (*)(void *, void *))dlsym(library, "tcg_temp_free_internal_x86_64");
    tcg.gen_op1 = (void (*)(void *, int, tcg_arg))dlsym(library, "tcg_gen_op1_x86_64");
    tcg.gen_op3 = (void (*)(void *, int, tcg_arg, tcg_arg, tcg_arg))dlsym(library, "tcg_gen_op3_x86_64");
    tcg.gen_brcondi = (void (*)(void *, int, void *, int32_t, void *))dlsym(library, "tcg_gen_brcondi_i32_x86_64");
    tcg.new_label = (void *(*)(void *))dlsym(library, "gen_new_label_x86_64");
    if (!tcg.helper || !tcg.gen_call || !tcg.gen_exit_tb || !tcg.temp_new || !tcg.temp_free || !tcg.gen_op1 ||
        !tcg.gen_op3 || !tcg.gen_brcondi || !tcg.new_label)
        return;
    call_slot = plt_slot(library, "tcg_gen_callN_x86_64");
    exit_slot = plt_slot(library, "tcg_gen_exit_tb_x86_64");
    if (call_slot == NULL || exit_slot == NULL)
        return;
    *call_slot = (void *)emit_call;
    *exit_slot = (void *)emit_exit;
    tcg.library = library;
}
