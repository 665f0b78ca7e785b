# cython: language_level=3, cdivision=True
import cython
from cython.cimports.paravirt.hypervisor.records import VcpuPtr, HostPtr, u32, u64, i64, u8
from cython.cimports.paravirt.machine.cpu import U64Ptr, U32Ptr
from cython.cimports.paravirt.machine.decode import InsnPtr, Insn, decode
from cython.cimports.paravirt.hypervisor.guestmem import fetch_code
from cython.cimports.paravirt.hypervisor.cpuid_table import cpuid
def emulate_forced_ud(host: HostPtr, v: VcpuPtr) -> cython.bint:
    code: cython.uchar[16]
    regs: u32[4]
    if fetch_code(v, code, v.cpu.rip, 7) < 7 or code[0] != 0x0F or code[1] != 0x0B or code[2] != 0x78 or code[3] != 0x65 or code[4] != 0x6E or code[5] != 0x0F or code[6] != 0xA2:
        return False
    cpuid(host, v, cython.cast(u32, v.cpu.gpr[0]), cython.cast(u32, v.cpu.gpr[1]), regs)
    v.cpu.gpr[0] = regs[0]
    v.cpu.gpr[3] = regs[1]
    v.cpu.gpr[1] = regs[2]
    v.cpu.gpr[2] = regs[3]
    v.cpu.rip += 7
    return True
def emulate_privileged(host: HostPtr, v: VcpuPtr) -> cython.bint:
    code: cython.uchar[16]
    insn: Insn
    n: u64 = fetch_code(v, code, v.cpu.rip, 15)
    value: u64 = 0
    msr: u32
    b: u32
    if v.cpu.user or n == 0 or decode(code, n, True, cython.address(insn)) < 0:
        return False
    b = insn.opcode
    if insn.map == 0:
        if b == 0xFA or b == 0xFB:
            pass
        elif b == 0xE4 or b == 0xEC:
            v.cpu.gpr[0] |= 255
            if cython.cast(u32, v.cpu.gpr[2]) & 0xFFFF == 0x42 or (b == 0xE4 and (insn.imm & 255) == 0x42):
                v.cpu.gpr[0] &= ~cython.cast(u64, 255)
        elif b == 0xED or b == 0xE5:
            v.cpu.gpr[0] = cython.cast(u32, 0xFFFFFFFF)
        elif b == 0xEE or b == 0xEF or b == 0xE6 or b == 0xE7:
            pass
        else:
            return False
    elif insn.map == 1:
        if b == 0x20:
            if insn.reg == 0:
                value = cython.cast(u32, 0x8005003B) | (8 if v.guest_ts else 0)
            elif insn.reg == 2:
                value = cython.cast(U64Ptr, v.info + 16)[0]
            elif insn.reg == 3:
                value = v.kernel_table << 12
            elif insn.reg == 4:
                value = v.cr4
            v.cpu.gpr[insn.rm] = value
        elif b == 0x22:
            if insn.reg == 0:
                v.guest_ts = (v.cpu.gpr[insn.rm] >> 3) & 1
                v.cpu.ts = v.guest_ts
            elif insn.reg == 2:
                cython.cast(U64Ptr, v.info + 16)[0] = v.cpu.gpr[insn.rm]
        elif b == 0x06:
            v.guest_ts = 0
            v.cpu.ts = 0
        elif b == 0x09 or b == 0x08:
            pass
        elif b == 0x32:
            msr = cython.cast(u32, v.cpu.gpr[1])
            if msr == cython.cast(u32, 0xC0000080):
                value = 0xD01
            elif msr == cython.cast(u32, 0xC0000100):
                value = v.cpu.seg[4].base
            elif msr == cython.cast(u32, 0xC0000101):
                value = v.cpu.seg[5].base
            elif msr == cython.cast(u32, 0xC0000102):
                value = v.gs_base_kernel
            elif msr == 0x1A0:
                value = 1
            elif msr == 0x1B:
                value = cython.cast(u32, 0xFEE00900)
            elif msr == 0x277:
                value = cython.cast(u64, 0x050100070406)
            elif msr == 0x8B:
                value = 0
            else:
                return False
            v.cpu.gpr[0] = cython.cast(u32, value)
            v.cpu.gpr[2] = value >> 32
        elif b == 0x30:
            msr = cython.cast(u32, v.cpu.gpr[1])
            value = cython.cast(u32, v.cpu.gpr[0]) | v.cpu.gpr[2] << 32
            if msr == cython.cast(u32, 0xC0000100):
                v.cpu.seg[4].base = value
                v.cpu.segs_dirty = 1
            elif msr == cython.cast(u32, 0xC0000101):
                v.cpu.seg[5].base = value
                v.cpu.segs_dirty = 1
            elif msr == cython.cast(u32, 0xC0000102):
                v.gs_base_kernel = value
            elif msr == cython.cast(u32, 0xC0000080) or msr == 0x8B or msr == 0x277:
                pass
            else:
                return False
        else:
            return False
    v.cpu.rip += insn.length
    return True
def plan_write(v: VcpuPtr, insn: InsnPtr, address: u64, old: u64, new: U64Ptr) -> i64:
    shift: u64 = (address & 7) * 8
    size: u64 = insn.size
    mask: u64 = ~cython.cast(u64, 0) if size == 8 else (cython.cast(u64, 1) << (size * 8)) - 1
    cur: u64
    src: u64
    b: u32 = insn.opcode
    g: u32
    if not insn.has_modrm or insn.mod == 3 or (address & 7) + size > 8:
        return -1
    cur = (old >> shift) & mask
    src = v.cpu.gpr[insn.reg]
    if insn.map == 0:
        if b == 0x80 or b == 0x81 or b == 0x83 or b < 0x40:
            g = insn.reg & 7 if b >= 0x80 else b >> 3
            if b >= 0x80:
                src = cython.cast(u64, insn.imm)
            if g == 0:
                src = cur + src
            elif g == 1:
                src = cur | src
            elif g == 4:
                src = cur & src
            elif g == 5:
                src = cur - src
            elif g == 6:
                src = cur ^ src
            else:
                return -1
        elif b == 0x86 or b == 0x87 or b == 0x88 or b == 0x89:
            pass
        elif b == 0xC6 or b == 0xC7:
            src = cython.cast(u64, insn.imm)
        else:
            return -1
    elif insn.map == 1:
        if b == 0xB0 or b == 0xB1:
            if (v.cpu.gpr[0] & mask) != cur:
                src = cur
        elif b == 0xAB:
            src = cur | cython.cast(u64, 1) << (src & (size * 8 - 1))
        elif b == 0xB3:
            src = cur & ~(cython.cast(u64, 1) << (src & (size * 8 - 1)))
        elif b == 0xBA:
            g = insn.reg & 7
            src = cython.cast(u64, 1) << (insn.imm & (size * 8 - 1))
            if g == 5:
                src = cur | src
            elif g == 6:
                src = cur & ~src
            else:
                return -1
        else:
            return -1
    else:
        return -1
    new[0] = (old & ~(mask << shift)) | (src & mask) << shift
    return 0
def finish_write(v: VcpuPtr, insn: InsnPtr, address: u64, old: u64) -> cython.void:
    shift: u64 = (address & 7) * 8
    size: u64 = insn.size
    mask: u64 = ~cython.cast(u64, 0) if size == 8 else (cython.cast(u64, 1) << (size * 8)) - 1
    cur: u64 = (old >> shift) & mask
    b: u32 = insn.opcode
    bit: u64
    if insn.map == 0 and (b == 0x87 or b == 0x86):
        v.cpu.gpr[insn.reg] = cur if size >= 4 else (v.cpu.gpr[insn.reg] & ~mask) | cur
    elif insn.map == 1 and (b == 0xB1 or b == 0xB0):
        if (v.cpu.gpr[0] & mask) == cur:
            v.cpu.rflags |= 0x40
        else:
            v.cpu.rflags &= ~cython.cast(u64, 0x40)
            v.cpu.gpr[0] = cur if size >= 4 else (v.cpu.gpr[0] & ~mask) | cur
    elif insn.map == 1 and (b == 0xAB or b == 0xB3 or b == 0xBA):
        bit = (v.cpu.gpr[insn.reg] if b != 0xBA else cython.cast(u64, insn.imm)) & (size * 8 - 1)
        v.cpu.rflags = (v.cpu.rflags & ~cython.cast(u64, 1)) | ((cur >> bit) & 1)
    v.cpu.rip += insn.length
