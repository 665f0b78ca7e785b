"""The backend of a channel: moves bytes between the guest's ring (public/io/console.h) and the host's end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from paravirt.domain0.channels.ends import HostEnd
from paravirt.domain0.devices.backend import Backend, Facilities
from paravirt.domain0.devices.nodes import DeviceNodes, FrontendNodes
from paravirt.domain0.grants import MappedGrant
from paravirt.domain0.ring import CONSOLE_IN, CONSOLE_OUT, ByteRing
from paravirt.domain0.services import Channel

ROUNDS: Final = 32
"""How often one event may empty the ring: a guest that never stops talking must not keep Domain 0 from others."""


class ChannelBackend(Backend):
    """One channel.

    Parameters:
        end: the host's end; it is closed when the device has gone.
    """

    def __init__(self, facilities: Facilities, nodes: DeviceNodes, end: HostEnd) -> None:
        super().__init__(facilities, nodes)
        self._end = end
        self._page: MappedGrant | None = None
        self._channel: Channel | None = None
        self._serve = self.guarded(self._move)
        end.on_ready = self._serve

    def start(self) -> None:
        """Say where its terminal is, and look what the frontend does."""
        if self._end.tty:
            self.facilities.store.set(f"{self.nodes.frontend}/tty", self._end.tty)
        super().start()

    def features(self) -> Mapping[str, str]:
        """There are none."""
        return {}

    def open(self, frontend: FrontendNodes) -> Mapping[str, str]:
        """Map the ring, whose event channel is called ``port`` here."""
        domid = self.nodes.domid
        self._page = self.facilities.grants.map(domid, frontend.number("ring-ref"))
        self._channel = self.facilities.services.bind(domid, frontend.number("port"), self._serve)
        self._move()
        return {}

    def disconnect(self, done: Callable[[], None]) -> None:
        """Unmap the ring. Nothing is in flight."""
        channel, self._channel = self._channel, None
        page, self._page = self._page, None
        if channel is not None:
            channel.close()
        if page is not None:
            page.unmap()
        done()

    def gone(self) -> None:
        """Close the host's end, too."""
        self._end.close()
        super().gone()

    def _move(self) -> None:
        """Bytes both ways, as far as there is room.

        Raises:
            RingError: the ring's indices make no sense.
        """
        page, channel, end = self._page, self._channel, self._end
        if page is None or channel is None:
            return
        incoming, outgoing = ByteRing(page, CONSOLE_IN), ByteRing(page, CONSOLE_OUT)
        moved = False
        for _ in range(ROUNDS):
            data = outgoing.take(end.room)
            if not data:
                break
            moved = True
            end.put(data)
        else:
            self.facilities.services.post(self._serve)
        if typed := end.typed:
            count = incoming.put(typed)
            end.take(count)
            moved = moved or count > 0
        if moved:
            channel.notify()
