/* RDMSR and WRMSR in the guest kernel. Values are shown where every processor has the same. */
#include "guest.h"

const char guest_name[] = "msrs";

static const struct {
    u32 index;
    const char *name;
} msrs[] = {
    {0x10, "TSC"},           {0x1b, "APIC_BASE"},       {0x8b, "UCODE_REV"},    {0xfe, "MTRRCAP"},
    {0x174, "SYSENTER_CS"},  {0x175, "SYSENTER_ESP"},   {0x176, "SYSENTER_EIP"},
    {0x200, "MTRR_PHYSBASE0"}, {0x277, "PAT"},          {0x2ff, "MTRR_DEF_TYPE"}, {0x802, "X2APIC_ID"},
    {0xc0000080, "EFER"},    {0xc0000081, "STAR"},      {0xc0000082, "LSTAR"},  {0xc0000083, "CSTAR"},
    {0xc0000084, "SFMASK"},  {0xc0000100, "FS_BASE"},   {0xc0000101, "GS_BASE"},
    {0xc0000102, "KERNEL_GS_BASE"}, {0xc0000103, "TSC_AUX"}, {0x12345, "0x12345"}, {0x40000000, "0x40000000"},
    {0x48, "SPEC_CTRL"}, {0x49, "PRED_CMD"}, {0xda0, "XSS"},
    {0x179, "MCG_CAP"}, {0x17a, "MCG_STATUS"}, {0x17b, "MCG_CTL"}, {0x4d0, "MCG_EXT_CTL"}, {0x400, "MC0_CTL"},
    {0x401, "MC0_STATUS"}, {0x402, "MC0_ADDR"}, {0x403, "MC0_MISC"}, {0x404, "MC1_CTL"}, {0x407, "MC1_MISC"},
    {0x408, "MC2_CTL"}, {0x40b, "MC2_MISC"}, {0x40c, "MC3_CTL"}, {0x480, "MC32_CTL"}, {0x280, "MC0_CTL2"},
    {0x282, "MC2_CTL2"}, {0, "P5_MC_ADDR"}, {1, "P5_MC_TYPE"},
};

static u64 value;

static int rdmsr(u32 index)
{
    u32 low = 0, high = 0;
    int vector = TRY("rdmsr", : "+a"(low), "+d"(high) : "c"(index));
    value = low | (u64)high << 32;
    return vector;
}

static int wrmsr(u32 index, u64 to)
{
    return TRY("wrmsr", ::"a"((u32)to), "d"((u32)(to >> 32)), "c"(index));
}

static void result(const char *label, int vector)
{
    printf("%s: %s", label, vector_name(vector));
    if (vector == 13)
        printf("(%lx)", fault.error);
    printf("\n");
}

static void reads(void)
{
    for (u64 i = 0; i < ARRAY_SIZE(msrs); i++) {
        char label[40];
        snprintf(label, sizeof(label), "read %s", msrs[i].name);
        result(label, rdmsr(msrs[i].index));
    }
    rdmsr(0xc0000080);
    printf("EFER: SCE=%lu LME=%lu LMA=%lu NXE=%lu\n", value & 1, value >> 8 & 1, value >> 10 & 1, value >> 11 & 1);
    rdmsr(0x277);
    printf("PAT=%lx\n", value);
    rdmsr(0x1b);
    printf("APIC_BASE: BSP=%lu ENABLE=%lu\n", value >> 8 & 1, value >> 11 & 1);
    for (u32 index = 0x17a; index <= 0x17b; index++) {
        rdmsr(index);
        printf("%x=%lx\n", index, value);
    }
    for (u32 index = 0x400; index < 0x408; index++) {
        rdmsr(index);
        printf("%x=%lx\n", index, value);
    }
    rdmsr(0x179);
    printf("MCG_CAP: banks=%lu CTL=%lu LMCE=%lu\n", value & 0xff, value >> 8 & 1, value >> 27 & 1);
}

static void writes(void)
{
    for (u64 i = 0; i < ARRAY_SIZE(msrs); i++) {
        char label[64];
        u32 index = msrs[i].index;
        if (index == 0x10 || index == 0xc0000100 || index == 0xc0000101 || index == 0xc0000102)
            continue;
        if (rdmsr(index) >= 0)
            value = 0;
        snprintf(label, sizeof(label), "write %s as it reads", msrs[i].name);
        result(label, wrmsr(index, value));
    }
    rdmsr(0xc0000080);
    result("write EFER without NXE", wrmsr(0xc0000080, value & ~0x800UL));
    rdmsr(0xc0000080);
    printf("EFER: NXE=%lu\n", value >> 11 & 1);
}

static void machine_check(void)
{
    static const u32 index[] = {0x17a, 0x17b, 0x400, 0x401, 0x402, 0x403, 0x405, 0x406, 0x407};
    for (u64 i = 0; i < ARRAY_SIZE(index); i++)
        for (int ones = 0; ones < 2; ones++) {
            int vector = wrmsr(index[i], ones ? ~0UL : 0x5a);
            printf("write %x %s: %s", index[i], ones ? "all ones" : "5a", vector_name(vector));
            rdmsr(index[i]);
            printf(", reads %lx\n", value);
            wrmsr(index[i], 0);
        }
}

static void bases(void)
{
    static const u32 index[] = {0xc0000100, 0xc0000101, 0xc0000102};
    static const char *const names[] = {"FS_BASE", "GS_BASE", "KERNEL_GS_BASE"};
    for (int i = 0; i < 3; i++) {
        char label[64];
        snprintf(label, sizeof(label), "write %s", names[i]);
        result(label, wrmsr(index[i], 0x123456789000 + (u64)i));
        rdmsr(index[i]);
        printf("  reads %lx\n", value);
        check(value == 0x123456789000 + (u64)i);
        snprintf(label, sizeof(label), "write %s, non-canonical", names[i]);
        result(label, wrmsr(index[i], 1UL << 62));
        snprintf(label, sizeof(label), "write %s, Xen's range", names[i]);
        result(label, wrmsr(index[i], 0xffff830000000000));
        result("back to 0", wrmsr(index[i], 0));
    }
}

/* Before a guest has a #GP handler, an RDMSR that would need one reads as zero. */
static void without_handler(void)
{
    u32 low = 0x1234, high = 0x5678;
    check(xen_set_trap_table(0) == 0);
    asm volatile("rdmsr" : "+a"(low), "+d"(high) : "c"(0x12345));
    traps_init();
    printf("unknown register without a handler: %x %x\n", low, high);
}

void guest_main(void)
{
    reads();
    writes();
    machine_check();
    bases();
    without_handler();
}
