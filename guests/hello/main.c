/* The smallest useful guest: it says hello and what it can see of its world, and powers off. */
#include "guest.h"

const char guest_name[] = "hello";

void guest_main(void)
{
    char extra[16], capabilities[1024];
    s64 version = xen_version(XENVER_version, 0);
    xen_version(XENVER_extraversion, extra);
    xen_version(XENVER_capabilities, capabilities);
    int vcpus = 0;
    while (xen_vcpu_op(VCPUOP_is_up, vcpus, 0) >= 0)
        vcpus++;
    printf("Hello from a paravirtual guest!\n");
    printf("Xen:     %ld.%ld%s (%s)\n", version >> 16, version & 0xffff, extra, start_info->magic);
    printf("Offers:  %s\n", capabilities);
    printf("Memory:  %lu MiB in %lu pages\n", start_info->nr_pages >> 8, start_info->nr_pages);
    printf("Vcpus:   %d\n", vcpus);
    printf("Role:    %s\n", is_domU() ? "guest domain" : "control domain");
    printf("Command: \"%s\"\n", start_info->cmd_line);
    if (start_info->mod_len)
        printf("Ramdisk: %lu bytes\n", start_info->mod_len);
    printf("Uptime:  %lu ms\n", system_time() / 1000000);
    printf("Goodbye.\n");
    shutdown(SHUTDOWN_poweroff);
}
