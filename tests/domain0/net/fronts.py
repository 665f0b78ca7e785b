"""Network frontends played by tests: of one pair of rings or several, with one event channel for both or two."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable
from typing import Any

from paravirt import Machine
from paravirt.abi.io import netif, xenbus
from paravirt.domain0.devices.registry import Device
from paravirt.domain0.net.packet import ETH_IP, ethernet, udp
from paravirt.domain0.xlcfg.vifs import vif_spec

from ..devices.frontends import FrontendGuest, GuestFrame
from ..devices.rings import FrontRing

PAGE = 4096
MACS = [bytes([0, 0x16, 0x3E, 0, 0, number]) for number in range(3)]
IPS = [bytes([10, 0, 2, 20 + number]) for number in range(3)]


def datagram(src: int, dst: int, payload: bytes = b"data", sport: int = 1) -> bytes:
    return ethernet(MACS[dst], MACS[src], ETH_IP, udp(IPS[src], IPS[dst], sport, 2, payload))


class FrontQueue:
    """One pair of rings; it grants a page for each buffer."""

    def __init__(self, guest: FrontendGuest, split: bool) -> None:
        self.guest = guest
        pages = guest.frame(), guest.frame()
        self.tx, self.rx = FrontRing([pages[0]], 12), FrontRing([pages[1]], 8)
        self.refs = [guest.grant(page) for page in pages]
        self.tx_port = guest.port()
        self.rx_port = guest.port() if split else self.tx_port
        self.buffers: list[GuestFrame] = []
        self.buffer_refs: list[int] = []
        self._given: deque[int] = deque()
        self._used: list[int] = []

    @property
    def nodes(self) -> dict[str, int]:
        """What it publishes."""
        if self.tx_port == self.rx_port:
            ports = {"event_channel": self.tx_port}
        else:
            ports = {"event_channel_tx": self.tx_port, "event_channel_rx": self.rx_port}
        return {"tx_ring_ref": self.refs[0], "rx_ring_ref": self.refs[1], **ports}

    def offer(self, count: int) -> None:
        """Give receive buffers."""
        new = range(len(self.buffers), len(self.buffers) + count)
        for _ in new:
            self.buffers.append(self.guest.frame())
            self.buffer_refs.append(self.guest.grant(self.buffers[-1]))
        self._put(new)

    def offer_again(self) -> None:
        """Give those that were answered, as they are with the packets that came."""
        used, self._used = self._used, []
        self._put(used)

    def _put(self, numbers: Iterable[int]) -> None:
        self._given.extend(numbers)
        self.rx.put([struct.pack("<HHI", number, 0, self.buffer_refs[number]) for number in numbers])
        self.event(self.rx_port)

    def event(self, port: int) -> None:
        """Send an event, and wait until it was handled: first its handler, then the turn that this asks for."""
        self.guest.send(port)
        # The second call may be put in before the turn.
        for _ in range(3):
            self.guest.machine.call(lambda: None)

    def send(self, data: bytes, flags: int = 0, gso: int = 0, kind: int = 1) -> list[tuple[int, int]]:
        """Send a packet, to be cut at ``gso`` bytes as of ``kind``, and wait for the responses."""
        chunks = [data[at : at + PAGE] for at in range(0, len(data), PAGE)]
        requests = []
        for number, chunk in enumerate(chunks):
            frame = self.guest.frame()
            frame.write(0, chunk)
            more = netif.NETTXF_more_data if number + 1 < len(chunks) else 0
            first = flags | (netif.NETTXF_extra_info if gso else 0) if not number else 0
            size = len(chunk) if number else len(data)
            requests.append(struct.pack("<IHHHH", self.guest.grant(frame), 0, first | more, number, size))
            if gso and not number:
                requests.append(struct.pack("<BBHBBHxxxx", netif.XEN_NETIF_EXTRA_TYPE_GSO, 0, gso, kind, 0, 0))
        return self.ask(requests)

    def ask(self, requests: list[bytes]) -> list[tuple[int, int]]:
        self.tx.put(requests)
        self.event(self.tx_port)
        return [struct.unpack_from("<Hh", response) for response in self.tx.take()]

    def received(self) -> list[bytes]:
        """The packets that came."""
        return [data for data, _ in self.arrived()]

    def arrived(self) -> list[tuple[bytes, tuple[int, int]]]:
        """The packets that came, each with where it is to be cut, and as of which kind; 0 and 0: it is not."""
        packets: list[tuple[bytes, tuple[int, int]]] = []
        more = extra = False
        for response in self.rx.take():
            # A slot's answer is the slot's, whatever it says about buffers.
            if self._given:
                self._used.append(self._given.popleft())
            if extra:
                extra = False
                packets[-1] = packets[-1][0], struct.unpack_from("<HB", response, 2)
                continue
            number, offset, flags, status = struct.unpack("<HHHh", response)
            assert status > 0
            data = self.buffers[number].read(offset, status)
            if more:
                packets[-1] = packets[-1][0] + data, packets[-1][1]
            else:
                packets.append((data, (0, 0)))
                extra = bool(flags & netif.NETRXF_extra_info)
            more = bool(flags & netif.NETRXF_more_data)
        return packets


class Front:
    """A frontend of so many queues; what is sent and received without saying by which goes through the first."""

    def __init__(
        self, machine: Machine, number: int, queues: int = 1, *, split: bool = False, rate: str = "", **features: object
    ) -> None:
        self.guest = FrontendGuest(machine, name=f"front{number}")
        self.number = number
        rates = {"rate": rate} if rate else {}
        spec = vif_spec(mac=MACS[number].hex(":"), ip=".".join(map(str, IPS[number])), **rates)
        self.device: Device = self.guest.domain.attach(spec)
        self.begin(queues, split=split, **features)

    def begin(self, queues: int = 1, *, split: bool = False, **features: object) -> None:
        self.queues = [FrontQueue(self.guest, split) for _ in range(queues)]
        chosen = {"request_rx_copy": 1, "feature_sg": 1, "feature_gso_tcpv4": 1, **features}
        if queues == 1:
            chosen |= self.queues[0].nodes
        else:
            chosen["multi_queue_num_queues"] = queues
            for number, queue in enumerate(self.queues):
                chosen |= {f"queue-{number}/{name}": value for name, value in queue.nodes.items()}
        self.guest.publish(self.device.nodes, **chosen, state=xenbus.XenbusStateConnected)
        first = self.queues[0]
        self.refs, self.rx = first.refs, first.rx
        self.offer, self.send, self.ask, self.received = first.offer, first.send, first.ask, first.received

    @property
    def fault(self) -> str | None:
        return self.device.backend.fault

    def counted(self) -> dict[str, Any]:
        """What its interface has counted."""
        machine = self.guest.machine
        mac = MACS[self.number].hex(":")
        return next(row for row in machine.call(machine.network.status) if row["mac"] == mac)
