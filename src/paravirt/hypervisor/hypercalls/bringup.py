"""What guests need to come up, until views.py uses registry.handlers()."""
# mypy: ignore-errors
# ruff: noqa
import struct
def families():
    def console_io(v, cmd, count, ptr, *a):
        v.domain.console_write(v.copy_from_guest(ptr, count)); return 0
    def version(v, cmd, ptr, *a):
        if cmd == 0: return (4 << 16) | 17
        if cmd == 1: v.copy_to_guest(ptr, b".paravirt\0".ljust(16, b"\0")); return 0
        if cmd == 6:
            idx,_ = struct.unpack("<II", v.copy_from_guest(ptr, 8))
            v.copy_to_guest(ptr, struct.pack("<II", idx, (1<<4)|(1<<5)|(1<<6)|(1<<7) if idx==0 else 0)); return 0
        if cmd == 5:
            v.copy_to_guest(ptr, struct.pack("<Q", 0xffff800000000000)); return 0
        if cmd == 7: return 4096
        return -38
    def memory(v, cmd, ptr, *a):
        if cmd == 9:
            n,_,buf = struct.unpack("<IIQ", v.copy_from_guest(ptr, 16))
            v.copy_to_guest(buf, struct.pack("<QQI", 0, v.domain.max_pages*4096, 1))
            v.copy_to_guest(ptr, struct.pack("<I", 1)); return 0
        if cmd == 12:
            v.copy_to_guest(ptr, struct.pack("<QQQ", 0xffff800000000000, 0xffff804000000000, v.domain.host.nr_frames)); return 0
        if cmd in (3,4): return v.domain.tot_pages
        if cmd == 2: return v.domain.host.nr_frames-1
        return -38
    def settraps(v, ptr, *a):
        while True:
            vec,fl,cs,_,addr = struct.unpack("<BBHIQ", v.copy_from_guest(ptr, 16))
            if not addr: return 0
            v.set_trap(vec, cs, fl, addr); ptr += 16
    def callback(v, cmd, ptr, *a):
        if cmd: return 0
        t,f,_,addr = struct.unpack("<HHIQ", v.copy_from_guest(ptr, 16))
        v.set_callback(t, addr, f); return 0
    def grant(v, cmd, ptr, n, *a):
        if cmd == 6:
            v.copy_to_guest(ptr, struct.pack("<HHIIhh", 0x7ff0,0, 1, 32, 0,0)); return 0
        if cmd == 8: return 0
        if cmd == 2:
            dom,_,nr,st,_,fl = struct.unpack("<HHIhHQ", v.copy_from_guest(ptr, 24)[:20].ljust(20,b"\0") if 0 else v.copy_from_guest(ptr, 24)[:4]+v.copy_from_guest(ptr+4,4)+v.copy_from_guest(ptr+8,4)+b"\0\0\0\0"[:0]+v.copy_from_guest(ptr+16,8)) if 0 else (0,0,int.from_bytes(v.copy_from_guest(ptr+4,4),'little'),0,0,int.from_bytes(v.copy_from_guest(ptr+16,8),'little'))
            while len(GF) < nr: GF.append(v.domain.share_frame())
            for i in range(nr): v.copy_to_guest(fl+8*i, struct.pack("<Q", GF[i]))
            v.copy_to_guest(ptr+8, struct.pack("<h", 0)); return 0
        return -38
    GF=[]
    def ok(v, *a): return 0
    def assist(v, cmd, t, *a):
        if cmd == 0: v.domain.vm_assist |= 1 << t
        else: v.domain.vm_assist &= ~(1 << t)
        return 0
    def physdev(v, cmd, ptr, *a):
        if cmd == 6: v.iopl = v.copy_from_guest(ptr, 4)[0]
        return 0
    return {0: settraps, 18: console_io, 17: version, 12: memory, 30: callback, 20: grant, 21: assist, 33: physdev, 8: ok, 9: ok}
