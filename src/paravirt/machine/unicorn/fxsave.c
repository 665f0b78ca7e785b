/* Floating-point and vector state of a Unicorn engine as an FXSAVE image.
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "private.h"

#include <string.h>

void refresh_controls(struct unicorn_engine *e)
{
    uint32_t mxcsr = FIELD(e->env, ENV_MXCSR, uint32_t);
    uint16_t fpcw = FIELD(e->env, ENV_FPUC, uint16_t);

    e->uc_reg_write(e->uc, UC_X86_REG_MXCSR, &mxcsr);
    e->uc_reg_write(e->uc, UC_X86_REG_FPCW, &fpcw);
}

static uint8_t *fpu_image(struct unicorn_engine *e, struct cpu *cpu)
{
    struct fpu_state *state = cpu->engine_state;
    return e->loaded == cpu ? (uint8_t *)e->env + ENV_FPU_BEGIN : state->image;
}

#define FPU_AT(offset) ((offset) - ENV_FPU_BEGIN)

void engine_get_fxsave(void *engine, struct cpu *cpu, uint8_t *image)
{
    const uint8_t *fpu = fpu_image(engine, cpu);
    uint32_t top = FIELD(fpu, FPU_AT(ENV_FPSTT), uint32_t) & 7;
    uint8_t tags = 0;
    int i;

    memset(image, 0, 512);
    FIELD(image, 0, uint16_t) = FIELD(fpu, FPU_AT(ENV_FPUC), uint16_t);
    FIELD(image, 2, uint16_t) = (uint16_t)((FIELD(fpu, FPU_AT(ENV_FPUS), uint16_t) & ~0x3800) | top << 11);
    for (i = 0; i < 8; i++)
        if (!fpu[FPU_AT(ENV_FPTAGS) + i])
            tags |= (uint8_t)(1 << i);
    image[4] = tags;
    FIELD(image, 8, uint64_t) = FIELD(fpu, FPU_AT(ENV_FPIP), uint64_t);
    FIELD(image, 16, uint64_t) = FIELD(fpu, FPU_AT(ENV_FPDP), uint64_t);
    FIELD(image, 24, uint32_t) = FIELD(fpu, FPU_AT(ENV_MXCSR), uint32_t);
    FIELD(image, 28, uint32_t) = 0xffff;
    for (i = 0; i < 8; i++) /* the image is in stack order, the library's array in register order */
        memcpy(image + 32 + 16 * i, fpu + FPU_AT(ENV_FPREGS) + 16 * ((top + (unsigned)i) & 7), 10);
    for (i = 0; i < 16; i++)
        memcpy(image + 160 + 16 * i, fpu + FPU_AT(ENV_XMM) + ZMM_BYTES * i, 16);
}

void engine_set_fxsave(void *engine, struct cpu *cpu, const uint8_t *image)
{
    struct unicorn_engine *e = engine;
    uint8_t *fpu = fpu_image(e, cpu);
    uint32_t top = FIELD(image, 2, uint16_t) >> 11 & 7;
    int i;

    FIELD(fpu, FPU_AT(ENV_FPUC), uint16_t) = FIELD(image, 0, uint16_t);
    FIELD(fpu, FPU_AT(ENV_FPUS), uint16_t) = (uint16_t)(FIELD(image, 2, uint16_t) & ~0x3800);
    FIELD(fpu, FPU_AT(ENV_FPSTT), uint32_t) = top;
    for (i = 0; i < 8; i++)
        fpu[FPU_AT(ENV_FPTAGS) + i] = !(image[4] >> i & 1);
    FIELD(fpu, FPU_AT(ENV_FPIP), uint64_t) = FIELD(image, 8, uint64_t);
    FIELD(fpu, FPU_AT(ENV_FPDP), uint64_t) = FIELD(image, 16, uint64_t);
    FIELD(fpu, FPU_AT(ENV_MXCSR), uint32_t) = FIELD(image, 24, uint32_t) & 0xffbf;
    for (i = 0; i < 8; i++)
        memcpy(fpu + FPU_AT(ENV_FPREGS) + 16 * ((top + (unsigned)i) & 7), image + 32 + 16 * i, 10);
    for (i = 0; i < 16; i++)
        memcpy(fpu + FPU_AT(ENV_XMM) + ZMM_BYTES * i, image + 160 + 16 * i, 16);
    if (e->loaded == cpu)
        refresh_controls(e);
    else
        ((struct fpu_state *)cpu->engine_state)->controls_stale = 1;
}
