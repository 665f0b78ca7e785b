# cython: language_level=3, cdivision=True
import cython
from cython.cimports.paravirt.hypervisor.records import VcpuPtr, HostPtr, u32
from cython.cimports.paravirt.machine.cpu import U32Ptr
def cpuid(host: HostPtr, v: VcpuPtr, leaf: u32, subleaf: u32, regs: U32Ptr) -> cython.void:
    regs[0] = 0
    regs[1] = 0
    regs[2] = 0
    regs[3] = 0
    if leaf == 0:
        regs[0] = 7
        regs[1] = 0x756E6547
        regs[3] = 0x49656E69
        regs[2] = 0x6C65746E
    elif leaf == 1:
        regs[0] = 0x000306C3
        regs[1] = v.id << 24 | 0x10800
        regs[2] = (1 << 0) | (1 << 9) | (1 << 13) | (1 << 19) | (1 << 20) | (1 << 23) | cython.cast(u32, 0x80000000)
        regs[3] = (1 << 0) | (1 << 4) | (1 << 5) | (1 << 6) | (1 << 8) | (1 << 15) | (1 << 23) | (1 << 24) | (1 << 25) | (1 << 26) | (1 << 9)
    elif leaf == 0x40000000:
        regs[0] = 0x40000005
        regs[1] = 0x566E6558
        regs[2] = 0x65584D4D
        regs[3] = 0x4D4D566E
    elif leaf == 0x40000001:
        regs[0] = 4 << 16 | 17
    elif leaf == cython.cast(u32, 0x80000000):
        regs[0] = cython.cast(u32, 0x80000008)
    elif leaf == cython.cast(u32, 0x80000001):
        regs[2] = 1
        regs[3] = (1 << 11) | (1 << 20) | (1 << 29)
    elif leaf == cython.cast(u32, 0x80000008):
        regs[0] = 0x3028
