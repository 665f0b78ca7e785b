"""TAP devices: interfaces of the host's that are ports of the router (Documentation/networking/tuntap.rst in Linux)."""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
from pathlib import Path
from typing import Final

from paravirt.domain0.net.deliver import Abilities, Waiting
from paravirt.domain0.net.interface import Interface
from paravirt.domain0.net.packet import Packet
from paravirt.domain0.net.resolver import Loop
from paravirt.domain0.net.router import Router
from paravirt.errors import UserError

NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,15}")
_CLONE: Final = Path("/dev/net/tun")
_TUNSETIFF: Final = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_IFREQ: Final = struct.Struct("16sH22x")
_LARGEST: Final = 65536
_BATCH: Final = 32
_PLAIN: Final = Abilities(scattered=True, gso=frozenset(), blank=frozenset())
"""What the host is sent: whole checksums, and nothing to be cut."""


class Tap:
    """A TAP device, and the port of the router that it is.

    One of that name that is there is used, as far as the user may; with CAP_NET_ADMIN it is made otherwise, and goes
    with the machine. The host brings it up and gives it addresses. It sends what it likes, from any address.

    Parameters:
        bridge: the segment that it is joined to.

    Raises:
        UserError: it cannot be had, or the name is another interface's.
    """

    def __init__(self, loop: Loop, router: Router, name: str, bridge: str) -> None:
        if not NAME.fullmatch(name):
            raise UserError(f"{name!r} cannot be the name of a TAP device.")
        self._loop, self._router = loop, router
        self.interface = Interface(name, b"", bridge=bridge, wake=self._write_soon)
        self._waiting = Waiting(self.interface, 0, _PLAIN)
        self._is_writing = False
        self._fd = _open(name)
        try:
            router.attach(self.interface)
        except UserError:
            os.close(self._fd)
            raise
        loop.watch(self._fd, select.POLLIN, self._ready)

    def close(self) -> None:
        """Leave the router, and give the device back."""
        if self._fd >= 0:
            self._loop.unwatch(self._fd)
            os.close(self._fd)
            self._fd = -1
            self.interface.is_up = False
            self._router.detach(self.interface)

    def _ready(self, _: int) -> None:
        """Some packets from the host; more than that wait for the next turn."""
        for _ in range(_BATCH):
            try:
                data = os.read(self._fd, _LARGEST)
            except BlockingIOError:
                return
            except OSError:  # somebody has removed it
                self.close()
                return
            self._router.receive(self.interface, Packet(data))

    def _write_soon(self) -> None:
        if not self._is_writing:
            self._is_writing = True
            self._loop.post(self._write)

    def _write(self) -> None:
        """Some of what waits for the host; more than that waits for the next turn."""
        self._is_writing = False
        for _ in range(_BATCH):
            piece = self._waiting.first() if self._fd >= 0 else None
            if piece is None:
                return
            self._waiting.drop_first()
            try:
                os.write(self._fd, piece.data)
            except OSError:  # it is down, or its queue is full
                self.interface.counters.overrun += 1
        self._write_soon()


def _open(name: str) -> int:
    try:
        fd = os.open(_CLONE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise UserError(f"This host gives out no TAP devices: {_CLONE} cannot be opened ({error.strerror}).") from error
    try:
        fcntl.ioctl(fd, _TUNSETIFF, _IFREQ.pack(name.encode(), _IFF_TAP | _IFF_NO_PI))
    except OSError as error:
        os.close(fd)
        raise UserError(f"The TAP device {name} cannot be had ({error.strerror}).") from error
    return fd
