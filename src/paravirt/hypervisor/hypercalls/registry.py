"""The rare hypercalls: the table of their handlers by number, and the two ways in which a handler ends early.

A handler takes the calling vcpu and the hypercall's arguments, each an unsigned 64-bit number, and returns what
the guest gets in rax. It runs under the machine lock. A module of this folder registers its handlers with
:func:`hypercall`; :func:`handlers` brings the modules in and gives the table to the host.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from paravirt.abi.errno import EPERM, ESRCH
from paravirt.abi.xen import DOMID_SELF
from paravirt.errors import HypervisorBug

if TYPE_CHECKING:
    from paravirt.hypervisor.views import Domain, Vcpu

Handler = Callable[..., int]
_Registered = TypeVar("_Registered", bound=Handler)

MODULES = (
    "callbacks",
    "console",
    "grant_table",
    "hvm",
    "memory",
    "physdev",
    "refused",
    "registers",
    "version",
)

PREEMPT_AFTER = 256
"""Units of work (a frame, an entry of a list) after which a handler lets the rest of the machine go on."""

WORK_OF_UNIT = 128
"""What each counts beside, in looks at page-table entries (``Host.spend``): about a microsecond."""

_handlers: dict[int, Handler] = {}


class HypercallError(Exception):
    """A hypercall ends with an error; ``errno`` is one of :mod:`paravirt.abi.errno`, positive."""

    def __init__(self, errno: int) -> None:
        super().__init__(errno)
        self.errno = errno


class HypercallContinuation(Exception):
    """A hypercall has done a part of its work: the guest is to call again, with these arguments.

    This is Xen's hypercall continuation. The guest's instruction pointer goes back to its ``syscall``, so that
    interrupts are taken in between and the guest does not notice; in a multicall the entry is changed.
    """

    def __init__(self, *args: int) -> None:
        super().__init__(*args)
        self.arguments = args


def hypercall(number: int) -> Callable[[_Registered], _Registered]:
    """Register a function as the handler of hypercall ``number``.

    Raises:
        HypervisorBug: the number has a handler already.
    """

    def register(handler: _Registered) -> _Registered:
        if number in _handlers:
            raise HypervisorBug(f"hypercall {number} has two handlers")
        _handlers[number] = handler
        return handler

    return register


def handlers() -> Mapping[int, Handler]:
    """The handlers by hypercall number."""
    for module in MODULES:
        importlib.import_module(f"{__package__}.{module}")
    return _handlers


def u32(value: int) -> int:
    """An argument that Xen declares as ``unsigned int``: its low half."""
    return value & 0xFFFF_FFFF


def is_canonical(address: int) -> bool:
    """Whether bits 63 to 47 of a 64-bit address are equal."""
    return (address >> 47) in (0, 0x1FFFF)


def is_guest_address(address: int) -> bool:
    """Whether an address can be a guest's: in the lower half, or above the hypervisor's range.

    Xen looks at no more than this when it checks a list ahead of using it.
    """
    return address < 0x0000_8000_0000_0000 or address >= 0xFFFF_8800_0000_0000


def find_domain(vcpu: Vcpu, domid: int) -> Domain:
    """The domain that a guest names, DOMID_SELF included.

    Raises:
        HypercallError: ESRCH, there is none.
    """
    if domid == DOMID_SELF:
        return vcpu.domain
    domain = vcpu.domain.host.domains.get(domid)
    if domain is None:
        raise HypercallError(ESRCH)
    return domain


def find_target(vcpu: Vcpu, domid: int) -> Domain:
    """The domain that a guest names, if it may act on that: itself, or any for a privileged caller.

    Raises:
        HypercallError: ESRCH, there is none; EPERM, it is another one's.
    """
    domain = find_domain(vcpu, domid)
    if domain is not vcpu.domain and not vcpu.domain.is_privileged:
        raise HypercallError(EPERM)
    return domain


def find_remote(vcpu: Vcpu, domid: int) -> Domain:
    """Another domain than the caller, by its number (DOMID_SELF is none).

    Raises:
        HypercallError: ESRCH, there is none; EPERM, it is the caller.
    """
    domain = vcpu.domain.host.domains.get(domid)
    if domain is None:
        raise HypercallError(ESRCH)
    if domain is vcpu.domain:
        raise HypercallError(EPERM)
    return domain
