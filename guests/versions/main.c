/* xen_version: every sub-operation's result, length and refusal; texts only where they are the interface's. */
#include "guest.h"

const char guest_name[] = "versions";

static char buffer[4096];

static u64 text_length(void)
{
    u64 n = 0;
    while (n < sizeof(buffer) && buffer[n])
        n++;
    return n;
}

static s64 ask(u32 cmd)
{
    memset(buffer, 0x5a, sizeof(buffer));
    return xen_version(cmd, buffer);
}

static u64 touched(void)
{
    u64 n = sizeof(buffer);
    while (n && buffer[n - 1] == 0x5a)
        n--;
    return n;
}

void guest_main(void)
{
    s64 version = xen_version(XENVER_version, 0);
    printf("version 4.17: %d\n", version == (4 << 16 | 17));
    check(version == (4 << 16 | 17));
    printf("extraversion: %s", error_name(ask(XENVER_extraversion)));
    printf(", bytes written %lu, starts with a dot: %d\n", touched(), buffer[0] == '.');
    printf("compile_info: %s", error_name(ask(XENVER_compile_info)));
    printf(", bytes written %lu\n", touched());
    printf("capabilities: %s", error_name(ask(XENVER_capabilities)));
    /* Xen lists HVM kinds too, where the machine can run them. */
    printf(", bytes written %lu, begins with xen-3.0-x86_64: %d\n", touched(), starts_with(buffer, "xen-3.0-x86_64 "));
    printf("changeset: %s", error_name(ask(XENVER_changeset)));
    printf(", bytes written %lu\n", touched());
    printf("platform_parameters: %s", error_name(ask(XENVER_platform_parameters)));
    printf(", bytes written %lu, virt_start %lx\n", touched(), *(u64 *)buffer);
    for (u32 map = 0; map < 3; map++) {
        struct xen_feature_info f = {map, 0};
        printf("features %u: %s", map, error_name(xen_version(XENVER_get_features, &f)));
        printf(" %x\n", f.submap);
    }
    expect_result("pagesize", xen_version(XENVER_pagesize, 0), 4096);
    printf("pagesize with a pointer: %s", error_name(ask(XENVER_pagesize)));
    printf(", bytes written %lu\n", touched());
    printf("guest_handle: %s", error_name(ask(XENVER_guest_handle)));
    printf(", bytes written %lu\n", touched());
    printf("commandline: %s", error_name(ask(XENVER_commandline)));
    printf(", bytes written %lu, text of %lu\n", touched(), text_length());
    printf("build_id: %s", error_name(ask(XENVER_build_id)));
    printf(", bytes written %lu\n", touched());
    printf("build_id, no buffer: %s\n", error_name(xen_version(XENVER_build_id, 0)));
    for (u32 cmd = 11; cmd < 14; cmd++)
        expect_result("beyond", xen_version(cmd, buffer), -ENOSYS);
    for (u32 cmd = 1; cmd < 11; cmd++)
        printf("%u with a bad pointer: %s\n", cmd, error_name(xen_version(cmd, (void *)0x12345000)));
}
