/* Opening a Unicorn engine: the library, its functions, a processor in long mode; and closing it.
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#define _GNU_SOURCE
#include "private.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "counters.h"
#include "inline_exit.h"
#include "segment_loads.h"

struct open_calls {
    unsigned (*uc_version)(unsigned *, unsigned *);
    int (*uc_open)(int, int, void **);
    int (*uc_ctl)(void *, uint32_t, ...);
    int (*uc_mem_map_ptr)(void *, uint64_t, size_t, uint32_t, void *);
    hook_adder *uc_hook_add;
    void (*update_cr0)(void *, uint32_t);
    void (*update_cr4)(void *, uint32_t);
    int (*uc_emu_stop)(void *);
};

static void *symbol(struct unicorn_engine *e, const char *name, const char **missing)
{
    void *address = dlsym(e->library, name);
    if (address == NULL && *missing == NULL)
        *missing = name;
    return address;
}

static const char *resolve(struct unicorn_engine *e, struct open_calls *calls)
{
    const char *missing = NULL;
    calls->uc_version = symbol(e, "uc_version", &missing);
    calls->uc_open = symbol(e, "uc_open", &missing);
    calls->uc_ctl = symbol(e, "uc_ctl", &missing);
    calls->uc_mem_map_ptr = symbol(e, "uc_mem_map_ptr", &missing);
    calls->uc_hook_add = symbol(e, "uc_hook_add", &missing);
    calls->update_cr0 = symbol(e, "cpu_x86_update_cr0_x86_64", &missing);
    calls->update_cr4 = symbol(e, "cpu_x86_update_cr4_x86_64", &missing);
    e->uc_close = symbol(e, "uc_close", &missing);
    e->uc_reg_write = symbol(e, "uc_reg_write", &missing);
    e->cpu_exec = symbol(e, "cpu_exec_x86_64", &missing);
    e->tlb_flush_by_mmuidx = symbol(e, "tlb_flush_by_mmuidx_x86_64", &missing);
    e->tlb_flush_page = symbol(e, "tlb_flush_page_x86_64", &missing);
    e->tb_invalidate_phys_range = symbol(e, "tb_invalidate_phys_range_x86_64", &missing);
    e->tlb_vaddr_to_host = symbol(e, "tlb_vaddr_to_host_x86_64", &missing);
    e->cc_compute_all = symbol(e, "cpu_cc_compute_all_x86_64", &missing);
    e->raise_exception_err = symbol(e, "raise_exception_err_x86_64", &missing);
    e->update_dr7 = symbol(e, "cpu_x86_update_dr7_x86_64", &missing);
    e->nb_tbs = symbol(e, "tcg_nb_tbs_x86_64", &missing);
    e->code_size = symbol(e, "tcg_code_size_x86_64", &missing);
    e->code_capacity = symbol(e, "tcg_code_capacity_x86_64", &missing);
    return missing;
}

/* Long mode with paging; the descriptor tables out of anybody's reach. */
static void set_up_cpu(struct unicorn_engine *e, const struct open_calls *calls)
{
    uint32_t mxcsr = 0x1f80;
    uint16_t fpcw = 0x37f, tags = 0xffff;

    calls->update_cr4(e->env, CR4_PAE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT);
    FIELD(e->env, ENV_EFER, uint64_t) |= EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
    calls->update_cr0(e->env, CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG);
    FIELD(e->env, ENV_GDT + SEG_BASE, uint64_t) = NON_CANONICAL;
    FIELD(e->env, ENV_GDT + SEG_LIMIT, uint32_t) = 0xffff;
    FIELD(e->env, ENV_LDT + SEG_BASE, uint64_t) = NON_CANONICAL;
    FIELD(e->env, ENV_LDT + SEG_LIMIT, uint32_t) = 0xffff;
    e->base_hflags = (FIELD(e->env, ENV_HFLAGS, uint32_t) | HF_PE | HF_LMA | HF_OSFXSR | HF_MP)
                     & ~(3u | HF_TS | HF_CS32 | HF_SS32 | HF_CS64 | HF_ADDSEG);
    e->uc_reg_write(e->uc, UC_X86_REG_MXCSR, &mxcsr);
    e->uc_reg_write(e->uc, UC_X86_REG_FPCW, &fpcw);
    e->uc_reg_write(e->uc, UC_X86_REG_FPTAG, &tags);
    memcpy(e->fresh.image, e->env + ENV_FPU_BEGIN, FPU_BYTES);
    e->fresh.controls_stale = 1;
}

static int open_library(struct unicorn_engine *e, struct open_calls *calls, const char *library, char *error,
                        size_t error_size)
{
    const char *missing;
    unsigned major = 0, minor = 0;
    unsigned version;

    e->library = dlopen(library, RTLD_LAZY | RTLD_LOCAL);
    if (e->library == NULL) {
        snprintf(error, error_size, "libunicorn cannot be loaded: %s", dlerror());
        return -1;
    }
    missing = resolve(e, calls);
    if (missing != NULL) {
        snprintf(error, error_size, "libunicorn lacks the function %s that this version needs", missing);
        return -1;
    }
    version = calls->uc_version(&major, &minor);
    if (version != UC_VERSION) {
        snprintf(error, error_size, "libunicorn is version %u.%u.%u, but only 2.1.4 is known", major, minor,
                 version >> 8 & 0xff);
        return -1;
    }
    return 0;
}

struct unicorn_engine *unicorn_engine_open(const char *library, void *memory, size_t size, int count_blocks,
                                           uint32_t code_buffer_bytes, char *error, size_t error_size)
{
    struct unicorn_engine *e = calloc(1, sizeof(*e));
    struct open_calls calls;
    int failed;

    if (e == NULL)
        return NULL;
    e->count_blocks = count_blocks;
    e->budget = ~0ull;
    e->nr_frames = size >> 12;
    e->first_stale = e->nr_frames;
    pthread_mutex_init(&e->stale_lock, NULL);
    e->stale = calloc((e->nr_frames + 63) / 64, sizeof(*e->stale));
    if (e->stale == NULL) {
        snprintf(error, error_size, "there is no memory for an engine over %zu MiB", size >> 20);
        unicorn_engine_close(e);
        return NULL;
    }
    if (open_library(e, &calls, library, error, error_size) != 0) {
        unicorn_engine_close(e);
        return NULL;
    }
    failed = calls.uc_open(UC_ARCH_X86, UC_MODE_64, &e->uc);
    if (!failed)
        failed = calls.uc_ctl(e->uc, UC_CTL_SET_CODE_BUFFER, code_buffer_bytes) ||
                 calls.uc_ctl(e->uc, UC_CTL_ENABLE_EXITS, 1) ||
                 calls.uc_mem_map_ptr(e->uc, 0, size, 7, memory);
    if (failed || FIELD(e->uc, UC_CPU, void *) == NULL) {
        snprintf(error, error_size, "libunicorn could not open an engine over %zu MiB", size >> 20);
        unicorn_engine_close(e);
        return NULL;
    }
    FIELD(e->uc, UC_NO_EXIT_REQUEST, uint8_t) = 1;
    e->cs = FIELD(e->uc, UC_CPU, char *);
    e->env = FIELD(e->cs, CPU_ENV_PTR, char *);
    e->icount_decr = FIELD(e->cs, CPU_ICOUNT_DECR_PTR, uint32_t *);
    if (e->env != e->cs + X86CPU_ENV || (char *)e->icount_decr != e->cs + X86CPU_ICOUNT_DECR) {
        snprintf(error, error_size, "libunicorn's private layout is not that of version 2.1.4");
        unicorn_engine_close(e);
        return NULL;
    }
    if (add_hooks(e, calls.uc_hook_add) != 0) {
        snprintf(error, error_size, "libunicorn refused a hook");
        unicorn_engine_close(e);
        return NULL;
    }
    if (trap_segment_loads(e->library) != 0) {
        snprintf(error, error_size, "libunicorn's segment loads cannot be intercepted: %s", strerror(errno));
        unicorn_engine_close(e);
        return NULL;
    }
    set_up_cpu(e, &calls);
    inline_exit_checks(e->library);
    count_translations(e->library);
    return e;
}

void unicorn_engine_close(struct unicorn_engine *e)
{
    if (e == NULL)
        return;
    delete_deadline(&e->deadline);
    if (e->uc != NULL)
        e->uc_close(e->uc);
    /* The library stays loaded: other engines use it, and inline_exit.c has changed it. */
    pthread_mutex_destroy(&e->stale_lock);
    free(e->stale);
    free(e);
}
