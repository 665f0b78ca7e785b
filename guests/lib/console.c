/*
 * Output. A guest domain writes to its console ring; a control domain, which has none, to Xen's own console.
 * The word "console=io" on the command line asks for Xen's console in any case.
 */
#include "guest.h"

static struct xencons_interface *ring;
static u32 ring_port;

int asked_for(const char *word)
{
    for (const char *p = start_info->cmd_line; *p; p++)
        if (starts_with(p, word))
            return 1;
    return 0;
}

void console_map(void)
{
    if (!is_domU() || !start_info->console.domU.evtchn || asked_for("console=io"))
        return;
    ring = va_of_mfn(start_info->console.domU.mfn);
    ring_port = start_info->console.domU.evtchn;
}

static void ring_write(const char *text, u64 length)
{
    struct evtchn_port port = {ring_port};
    volatile u32 *cons = &ring->out_cons, *prod = &ring->out_prod;
    while (length) {
        while (length && *prod - *cons < sizeof(ring->out)) {
            ring->out[*prod % sizeof(ring->out)] = *text++;
            asm volatile("" ::: "memory"); /* the text before the index that announces it */
            *prod = *prod + 1;
            length--;
        }
        xen_event_channel_op(EVTCHNOP_send, &port);
        if (length)
            xen_sched_op(SCHEDOP_yield, 0);
    }
}

void console_write(const char *text, u64 length)
{
    if (ring)
        ring_write(text, length);
    else
        xen_console_io(CONSOLEIO_write, length, (void *)text);
}

struct out {
    char *to;
    u64 size, used;
};

static void put(struct out *out, char c)
{
    if (out->used + 1 < out->size)
        out->to[out->used++] = c;
}

static void put_number(struct out *out, u64 value, u32 base, int negative, int width, char pad)
{
    char digits[24];
    int n = 0;
    do
        digits[n++] = "0123456789abcdef"[value % base];
    while (value /= base);
    if (negative && pad == '0')
        put(out, '-');
    for (int i = n + negative; i < width; i++)
        put(out, pad);
    if (negative && pad != '0')
        put(out, '-');
    while (n)
        put(out, digits[--n]);
}

static void put_text(struct out *out, const char *text, int width, int left)
{
    int gap = width - (int)strlen(text);
    for (int i = 0; !left && i < gap; i++)
        put(out, ' ');
    while (*text)
        put(out, *text++);
    for (int i = 0; left && i < gap; i++)
        put(out, ' ');
}

/* %d %u %x %lx %ld %s %c %%, with width, '-' for text and '0'. */
static void format_to(struct out *out, const char *format, __builtin_va_list args)
{
    for (; *format; format++) {
        int width = 0, is_long = 0, left = 0;
        char pad = ' ';
        if (*format != '%') {
            put(out, *format);
            continue;
        }
        format++;
        if (*format == '-')
            left = 1, format++;
        if (*format == '0')
            pad = '0', format++;
        while (*format >= '0' && *format <= '9')
            width = width * 10 + *format++ - '0';
        while (*format == 'l')
            is_long = 1, format++;
        if (*format == 's') {
            put_text(out, __builtin_va_arg(args, const char *), width, left);
        } else if (*format == 'c') {
            put(out, (char)__builtin_va_arg(args, int));
        } else if (*format == 'd') {
            s64 value = is_long ? __builtin_va_arg(args, s64) : __builtin_va_arg(args, int);
            put_number(out, value < 0 ? -(u64)value : (u64)value, 10, value < 0, width, pad);
        } else if (*format == 'u' || *format == 'x') {
            u64 value = is_long ? __builtin_va_arg(args, u64) : __builtin_va_arg(args, u32);
            put_number(out, value, *format == 'u' ? 10 : 16, 0, width, pad);
        } else {
            put(out, *format);
        }
    }
    if (out->size)
        out->to[out->used] = 0;
}

int printf(const char *format, ...)
{
    char text[512];
    struct out out = {text, sizeof(text), 0};
    __builtin_va_list args;
    __builtin_va_start(args, format);
    format_to(&out, format, args);
    __builtin_va_end(args);
    console_write(text, out.used);
    return (int)out.used;
}

int snprintf(char *to, u64 size, const char *format, ...)
{
    struct out out = {to, size, 0};
    __builtin_va_list args;
    __builtin_va_start(args, format);
    format_to(&out, format, args);
    __builtin_va_end(args);
    return (int)out.used;
}
