# cython: language_level=3
import cython
from cython.cimports.paravirt.hypervisor.records import VcpuPtr, DomainPtr, HostPtr, u32, u16, u64, i64
from cython.cimports.paravirt.machine.cpu import U64Ptr
from cython.cimports.paravirt.hypervisor.guestmem import copy_from_guest, fetch_code
def load_segment(host: HostPtr, v: VcpuPtr, seg: cython.int, selector: u16) -> i64:
    d: u64
    e: u32 = selector >> 3
    v.cpu.segs_dirty = 1
    if selector & 0xFFFC == 0:
        v.cpu.seg[seg].selector = selector
        v.cpu.seg[seg].base = 0
        v.cpu.seg[seg].flags = 0
        return 0
    if selector >= 0xE000:
        d = cython.cast(u64, 0x00AFFB000000FFFF) if selector == 0xE033 else (cython.cast(u64, 0x00CFFB000000FFFF) if selector == 0xE023 else cython.cast(u64, 0x00CFF3000000FFFF))
    elif selector & 4:
        if e >= v.ldt_entries or copy_from_guest(v, cython.address(d), v.ldt_base + e * 8, 8) != 0:
            return 13 << 16 | selector
    else:
        if e >= v.gdt_entries:
            return 13 << 16 | selector
        d = cython.cast(U64Ptr, host.memory + (v.gdt_frames[e >> 9] << 12))[e & 511]
    if not (d >> 47) & 1:
        return 11 << 16 | selector
    v.cpu.seg[seg].selector = selector
    v.cpu.seg[seg].flags = cython.cast(u32, (d >> 32) & 0xF0FF00)
    v.cpu.seg[seg].base = ((d >> 16) & 0xFFFFFF) | (d >> 56) << 24
    v.cpu.seg[seg].limit = cython.cast(u32, (d & 0xFFFF) | ((d >> 32) & 0xF0000))
    if (d >> 55) & 1:
        v.cpu.seg[seg].limit = v.cpu.seg[seg].limit << 12 | 0xFFF
    return 0
def check_iret_selectors(v: VcpuPtr, cs: u16, ss: u16) -> cython.bint:
    load_segment(v.domain.host, v, 1, cs)
    load_segment(v.domain.host, v, 2, ss)
    return True
def check_descriptor(d: DomainPtr, descriptor: U64Ptr) -> cython.bint:
    if (descriptor[0] >> 47) & 1 and (descriptor[0] >> 44) & 1:
        descriptor[0] |= cython.cast(u64, 3) << 45
    return True
def emulate_segment(host: HostPtr, v: VcpuPtr) -> cython.bint:
    code: cython.uchar[16]
    f: u64[5]
    n: u64 = fetch_code(v, code, v.cpu.rip, 4)
    if n >= 2 and code[0] == 0x48 and code[1] == 0xCF:
        if copy_from_guest(v, f, v.cpu.gpr[4], 40) != 0:
            return False
        v.cpu.rip = f[0]
        v.cpu.rflags = (f[2] & 0x250DD5) | 0x202
        v.cpu.gpr[4] = f[3]
        load_segment(host, v, 1, cython.cast(u16, f[1] | 3))
        load_segment(host, v, 2, cython.cast(u16, f[4] | 3))
        return True
    if n >= 2 and code[0] == 0x8E and code[1] >= 0xC0:
        load_segment(host, v, (code[1] >> 3) & 7, cython.cast(u16, v.cpu.gpr[code[1] & 7]))
        v.cpu.rip += 2
        return True
    if n >= 3 and code[0] == 0x0F and code[1] == 0x00:
        v.cpu.rflags &= ~cython.cast(u64, 0x40)
        v.cpu.rip += 3 if code[2] >= 0xC0 else 7
        return True
    return False
