"""console_io: the hypervisor's own console (public/xen.h, CONSOLEIO_*).

A release build of Xen keeps it for domain 0 and for domains that the toolstack marked; everybody else has a console
of its own over a shared ring.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paravirt.abi.errno import E2BIG, ENOSYS, EPERM
from paravirt.abi.xen import CONSOLEIO_read, CONSOLEIO_write, __HYPERVISOR_console_io

from .registry import PREEMPT_AFTER, WORK_OF_UNIT, HypercallContinuation, HypercallError, hypercall, u32

if TYPE_CHECKING:
    from paravirt.hypervisor.views import Vcpu

CHUNK = 128
"""Bytes that are taken from the guest at a time, as Xen does: what stands before an unreadable chunk is written."""
INT_MAX = 0x7FFF_FFFF


@hypercall(__HYPERVISOR_console_io)
def console_io(vcpu: Vcpu, cmd: int, count: int, buffer: int, *_: int) -> int:
    """Write ``count`` bytes to the console (0), or read at most as many (how many it were: none is ever typed there).

    Raises:
        HypercallError: EPERM, the console is not open to the domain; EFAULT, after what could be read was written;
            E2BIG, a read of more than 2 GiB; ENOSYS, no such operation.
    """
    domain = vcpu.domain
    cmd, count = u32(cmd), u32(count)
    if not domain.is_privileged and not domain.state.is_console:
        raise HypercallError(EPERM)
    if cmd == CONSOLEIO_read:
        if count > INT_MAX:  # it could not be told from an error
            raise HypercallError(E2BIG)
        return 0
    if cmd != CONSOLEIO_write:
        raise HypercallError(ENOSYS)
    for _done in range(PREEMPT_AFTER):
        if count == 0:
            return 0
        domain.host.spend(WORK_OF_UNIT)
        size = min(count, CHUNK)
        domain.console_write(vcpu.copy_from_guest(buffer, size))
        buffer = (buffer + size) & 0xFFFF_FFFF_FFFF_FFFF
        count -= size
    if count:
        raise HypercallContinuation(cmd, count, buffer)
    return 0
