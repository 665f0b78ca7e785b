"""The network backend: a guest's interface, from its rings to the router and back (public/io/netif.h).

Packets are copied, both ways. Page-flipping receive is not offered: it exchanges frames of the guest's for others,
and Linux has had no frontend that takes it since 2.6; ``feature-rx-flip`` says so.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from itertools import islice
from typing import Final

from paravirt.domain0.devices.backend import Backend, Facilities, MappedRing
from paravirt.domain0.devices.later import Later
from paravirt.domain0.devices.nodes import DeviceNodes, FrontendNodes
from paravirt.domain0.devices.second_look import SecondLook
from paravirt.domain0.grants import GrantError
from paravirt.domain0.net import deliver, transmit
from paravirt.domain0.net.credit import Credit
from paravirt.domain0.net.interface import Interface
from paravirt.domain0.net.network import Network
from paravirt.domain0.net.packet import ETH_IP, ETH_IPV6, TCP, UDP, Malformed, Packet
from paravirt.domain0.ring import GuestProtocolError
from paravirt.domain0.services import Channel

MOST_QUEUES: Final = 4
MOST_GROUPS: Final = 64
TURN: Final = 32
"""Packets that an interface gives in one turn."""
_GROUPS_NODE: Final = "request-multicast-control"


class Queue:
    """One pair of rings.

    Parameters:
        number: its own among the interface's; what waits for it waits there.

    Raises:
        GuestProtocolError, GrantError: the frontend has published nonsense; nothing is left of it then.
    """

    def __init__(self, backend: NetBackend, nodes: FrontendNodes, number: int) -> None:
        facilities, domid = backend.facilities, backend.nodes.domid
        references = nodes.number("tx-ring-ref"), nodes.number("rx-ring-ref")
        self._channels: list[Channel] = []
        self._rings: list[MappedRing] = []
        self._backend = backend
        try:
            for reference, size in zip(references, (transmit.ENTRY_SIZE, deliver.ENTRY_SIZE), strict=True):
                self._rings.append(MappedRing(facilities.grants, domid, [reference], size))
            self.tx, self.rx = self._rings
            self._bind(nodes)
        except (GuestProtocolError, GrantError):
            self.close()
            raise
        self._requests = transmit.Requests(self.tx)
        self._held: transmit.Transmitted | None = None
        self._waiting = deliver.Waiting(backend.interface, number, backend.abilities)
        self._second_looks = [SecondLook(facilities, backend.look_again) for _ in self._rings]

    def _bind(self, nodes: FrontendNodes) -> None:
        backend = self._backend
        services, domid = backend.facilities.services, backend.nodes.domid
        split = nodes.text("event-channel-tx", "") != ""
        if split:
            handlers = {"event-channel-tx": backend.has_packets, "event-channel-rx": backend.has_buffers}
        else:
            handlers = {"event-channel": backend.has_both}
        for name, handler in handlers.items():
            self._channels.append(services.bind(domid, nodes.number(name), backend.guarded(handler)))
        self._tx_channel, self._rx_channel = self._channels[0], self._channels[-1]

    def close(self) -> None:
        """Give everything back."""
        for channel in self._channels:
            channel.close()
        for ring in self._rings:
            ring.unmap()

    def give(self, limit: int) -> tuple[int, bool]:
        """Hand up to ``limit`` packets to the router: how many it were, and whether there may be more."""
        sent: list[transmit.Transmitted] = []
        wait: float | None = None
        while len(sent) < limit and (self._held is not None or not self._requests.is_empty):
            packet = self._held or transmit.next_packet(self._requests.next)
            self._held = None
            wait = self._backend.wait_for(packet.size)
            if wait is not None:
                self._held = packet
                break
            sent.append(packet)
        self._answer(sent)
        if wait is not None:
            self._backend.come_later(wait)
            return len(sent), False
        has_more = len(sent) == limit or self.tx.ask_for_event()
        if not has_more:
            self._second_looks[0].soon(self.tx.position[0])
        return len(sent), has_more

    def _answer(self, sent: list[transmit.Transmitted]) -> None:
        """Copy packets out of the guest, answer their requests, and hand them to the router."""
        good = [packet for packet in sent if not packet.is_bad and packet.group is None]
        copied = iter(
            self._backend.facilities.grants.copy_from(
                self._backend.nodes.domid, [part for packet in good for part in packet.parts]
            )
        )
        ready: list[Packet] = []
        responses: list[bytes] = []
        for packet in sent:
            is_sent = not packet.is_bad
            if packet.group is not None:
                is_sent = self._backend.change_group(*packet.group)
            elif is_sent:
                pieces = [next(copied) for _ in packet.parts]
                data = [piece for piece in pieces if isinstance(piece, bytes)]
                is_sent = len(data) == len(pieces)
                if is_sent:
                    ready.append(Packet(b"".join(data), packet.csum_blank, packet.gso_size))
            responses += packet.responses(is_sent)
        self.tx.respond_all(responses)
        if self.tx.publish():
            self._tx_channel.notify()
        for frame in ready:
            self._backend.network.router.receive(self._backend.interface, frame)

    @property
    def is_waited_for(self) -> bool:
        """Packets wait for its buffers."""
        return not self._waiting.is_empty

    def take(self) -> None:
        """Put what waits into the guest's buffers, as far as there are any.

        Raises:
            GuestProtocolError: as for :meth:`put`.
        """
        ready: list[Packet] = []
        used, room = 0, self.rx.waiting()
        while (packet := self._waiting.first()) is not None:
            wanted = used + deliver.slots(packet)
            if room < wanted:
                if not self.rx.ask_for_event(wanted):
                    self._second_looks[1].soon(self.rx.position[0] + wanted)
                    break
                room = self.rx.waiting()
            used = wanted
            ready.append(packet)
            self._waiting.drop_first()
        if ready:
            self.put(ready)

    def put(self, packets: list[Packet]) -> None:
        """Put packets into buffers that the caller has seen.

        Raises:
            GuestProtocolError: they are not there any more, or the indices make no sense.
        """
        counts = [deliver.slots(packet) for packet in packets]
        taken = iter(self._buffers(sum(counts)))
        requests = [list(islice(taken, count)) for count in counts]
        parts = [deliver.parts(packet, wanted) for packet, wanted in zip(packets, requests, strict=True)]
        grants, domid = self._backend.facilities.grants, self._backend.nodes.domid
        results = iter(grants.copy_to(domid, [part for some in parts for part in some]))
        responses: list[bytes] = []
        for packet, wanted, some in zip(packets, requests, parts, strict=True):
            errors = [next(results) for _ in some]
            responses += deliver.responses(packet, wanted, not any(errors))
        self.rx.respond_all(responses)
        if self.rx.publish():
            self._rx_channel.notify()

    def _buffers(self, count: int) -> list[bytes]:
        taken = self.rx.take(count)
        if len(taken) < count:
            raise GuestProtocolError(f"of {count} receive buffers that were there {len(taken)} are left")
        return taken


class NetBackend(Backend):
    """One interface of a guest's.

    Parameters:
        interface: its side of the router; attached already.
        credit: the limit of what it may send, or None.

    Attributes:
        abilities: what its frontend can take.
    """

    def __init__(
        self,
        facilities: Facilities,
        nodes: DeviceNodes,
        network: Network,
        interface: Interface,
        credit: Credit | None = None,
    ) -> None:
        super().__init__(facilities, nodes)
        self.network = network
        self.interface = interface
        self._credit = credit
        self._queues: list[Queue] = []
        self.abilities = deliver.Abilities(False, frozenset(), frozenset())
        self._next_queue = 0
        self._credit_comes = Later(facilities.services, self._has_credit)
        self._unwatch_groups: Callable[[], None] = lambda: None
        interface.wake = lambda: network.rounds.is_waited_for(self)
        interface.is_up = False

    def counted(self) -> Mapping[str, int]:
        """What its interface counts."""
        return asdict(self.interface.counters)

    # --- as a backend -----------------------------------------------------------------------------------------

    def features(self) -> Mapping[str, str]:
        """What netback of Linux offers, without control ring and grant staging."""
        yes = (
            "feature-sg", "feature-gso-tcpv4", "feature-gso-tcpv6", "feature-ipv6-csum-offload", "feature-rx-copy",
            "feature-multicast-control", "feature-dynamic-multicast-control", "feature-split-event-channels",
        )  # fmt: skip
        return {
            **dict.fromkeys(yes, "1"),
            "feature-rx-flip": "0",
            "multi-queue-max-queues": str(MOST_QUEUES),
            "hotplug-status": "connected",
        }

    def open(self, frontend: FrontendNodes) -> Mapping[str, str]:
        """Map the rings of every queue."""
        if not frontend.flag("request-rx-copy"):
            raise GuestProtocolError("its frontend wants pages to be flipped; only copies are made")
        count = frontend.number("multi-queue-num-queues", 1, MOST_QUEUES)
        if not count:
            raise GuestProtocolError("its frontend has no queues")
        gso = {ETH_IP: "feature-gso-tcpv4", ETH_IPV6: "feature-gso-tcpv6"}
        blank = {kind for kind, is_off in (
            (ETH_IP, frontend.flag("feature-no-csum-offload")),
            (ETH_IPV6, not frontend.flag("feature-ipv6-csum-offload")),
        ) if not is_off}  # fmt: skip
        self.abilities = deliver.Abilities(
            frontend.flag("feature-sg"),
            frozenset(kind for kind, name in gso.items() if frontend.flag(name)),
            frozenset(blank),
        )
        self._choose_groups()
        path = f"{self.nodes.frontend}/{_GROUPS_NODE}"
        self._unwatch_groups = self.facilities.store.watch(path, lambda _: self.guarded(self._choose_groups)())
        for number in range(count):
            self._queues.append(Queue(self, frontend if count == 1 else frontend.below(f"queue-{number}"), number))
        self.interface.spread(count, self._queue_of)
        self.interface.is_up = True
        self.has_both()
        return {}

    def disconnect(self, done: Callable[[], None]) -> None:
        """Unmap the rings. Nothing is ever in flight: copies are made at once."""
        self._unwatch_groups()
        self._unwatch_groups = lambda: None
        self.interface.is_up = False
        self.interface.discard()
        self.network.rounds.leave(self)
        queues, self._queues = self._queues, []
        for queue in queues:
            queue.close()
        done()

    def gone(self) -> None:
        """The interface leaves the router."""
        self.network.detach(self.interface)
        super().gone()

    def _choose_groups(self) -> None:
        """The frontend wants the groups that it joins, or all (feature-dynamic-multicast-control)."""
        chooses = FrontendNodes(self.facilities.store, self.nodes.frontend).flag(_GROUPS_NODE)
        if chooses != (self.interface.groups is not None):
            self.interface.groups = set() if chooses else None

    # --- turns ------------------------------------------------------------------------------------------------

    def has_packets(self) -> None:
        """The guest has sent something."""
        self.network.rounds.has_packets(self)

    def has_buffers(self) -> None:
        """The guest has given buffers."""
        if any(queue.is_waited_for for queue in self._queues):
            self.network.rounds.is_waited_for(self)

    def has_both(self) -> None:
        """The guest did one of the two."""
        self.has_packets()
        self.has_buffers()

    def look_again(self) -> None:
        """The guest may have done one of the two unnoticed, if it is still there."""
        if self._queues:
            self.has_both()

    def give(self) -> bool:
        """Hand some packets of each queue to the router."""
        more = False

        def run() -> None:
            nonlocal more
            left, queues = TURN, self._queues
            for step in range(len(queues)):
                queue = queues[(self._next_queue + step) % len(queues)]
                given, has_more = queue.give(max(1, left))
                left -= given
                more = more or has_more
                if not self._queues:
                    return
            self._next_queue += 1

        self.guarded(run)()
        return more and bool(self._queues)

    def take(self) -> None:
        """Put what waits into the guest's buffers, as far as there are any: those of one queue hold no other up."""

        def run() -> None:
            for queue in self._queues:
                queue.take()

        self.guarded(run)()

    def _queue_of(self, packet: Packet) -> int:
        """Of several queues, the one for a packet: those of one conversation stay in their order."""
        try:
            headers = packet.headers
        except Malformed:
            return 0
        known = headers.ip_src + headers.ip_dst or packet.data[:12]
        # A part of a packet goes where its other parts go, which have no ports.
        if headers.protocol in (TCP, UDP) and not headers.is_fragment:
            known += packet.data[headers.l4 : headers.l4 + 4]
        return zlib.crc32(known) % len(self._queues)

    # --- for its queues ---------------------------------------------------------------------------------------

    def wait_for(self, size: int) -> float | None:
        """Use credit for so many bytes: None, or how long to wait for it."""
        return None if self._credit is None else self._credit.take(size, time.monotonic())

    def come_later(self, seconds: float) -> None:
        """Have a turn when there is credit again: one, however many events the guest sends until then."""
        self._credit_comes.ask(seconds)

    def _has_credit(self) -> None:
        if self._queues:
            self.has_packets()

    def change_group(self, group: bytes, joins: bool) -> bool:
        """Join or leave an Ethernet group: false, if it is none, or too many are joined."""
        groups = self.interface.groups
        if groups is None or not group[0] & 1:
            return False
        if not joins:
            groups.discard(group)
        elif len(groups) >= MOST_GROUPS:
            return False
        else:
            groups.add(group)
        return True
