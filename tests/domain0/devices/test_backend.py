"""A backend's life on a machine: connected, flooded, lied to, taken down and set up again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace

import pytest

from paravirt import Machine
from paravirt.abi.io import xenbus
from paravirt.domain0 import services as services_module
from paravirt.domain0.devices.backend import Backend, Facilities, MappedRing
from paravirt.domain0.devices.nodes import DeviceNodes, FrontendNodes
from paravirt.domain0.iopool import IoPool
from paravirt.domain0.services import Channel
from paravirt.hypervisor.audit import require_clean

from ...hypervisor.audited import audited
from ...patience import PATIENCE, wait_for
from .frontends import FrontendGuest
from .rings import FrontRing

SIZE = 16


class Echo(Backend):
    """Answers each request with its bytes backwards; ``held`` ones are answered later."""

    ring: MappedRing | None = None
    channel: Channel | None = None
    events = 0

    def features(self) -> Mapping[str, str]:
        return {"feature-echo": "1"}

    def open(self, frontend: FrontendNodes) -> Mapping[str, str]:
        grants, domid = self.facilities.grants, self.nodes.domid
        self.ring = MappedRing(grants, domid, [frontend.number("ring-ref")], SIZE)
        port = frontend.number("event-channel")
        self.channel = self.facilities.services.bind(domid, port, self.guarded(self.serve))
        self.facilities.services.post(self.guarded(self.serve))
        return {"sectors": "7"}

    def disconnect(self, done: Callable[[], None]) -> None:
        if self.channel is not None:
            self.channel.close()
        if self.ring is not None:
            self.ring.unmap()
        self.ring = self.channel = None
        done()

    def serve(self) -> None:
        self.events += 1
        if self.ring is None or self.channel is None:
            return
        while self.ring.ask_for_event():
            for request in self.ring.take(8):
                self.ring.respond(request[::-1])
            if self.ring.publish():
                self.channel.notify()


class Front:
    """The device's other half."""

    def __init__(self, guest: FrontendGuest, nodes: DeviceNodes) -> None:
        self.guest, self.nodes = guest, nodes
        self.begin()

    def begin(self) -> None:
        """A new ring and a new port, published."""
        page = self.guest.frame()
        self.ring = FrontRing([page], SIZE)
        self.ref = self.guest.grant(page)
        self.port = self.guest.port()
        self.guest.publish(self.nodes, ring_ref=self.ref, event_channel=self.port, state=xenbus.XenbusStateConnected)

    def state(self, state: int) -> None:
        self.guest.publish(self.nodes, state=state)

    def ask(self, requests: list[bytes]) -> list[bytes]:
        """Send requests and wait for the answers."""
        if self.ring.put(requests):
            self.guest.send(self.port)
        answers: list[bytes] = []
        deadline = time.monotonic() + PATIENCE
        while len(answers) < len(requests) and time.monotonic() < deadline:
            answers += self.ring.take()
        return answers


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine(memory=32) as made, audited(made):
        yield made


@pytest.fixture
def echo(machine: Machine, guest: FrontendGuest) -> Echo:
    nodes = DeviceNodes("echo", guest.domid, 5)

    def make() -> Echo:
        nodes.announce(machine.store, {"colour": "red"}, {"mode": "w"})
        services = machine._services
        pool = IoPool(services, 1)
        made = Echo(Facilities(machine.store, services, machine.grants, pool, False), nodes)
        made.start()
        return made

    return machine.call(make)


def test_its_nodes(machine: Machine, guest: FrontendGuest, echo: Echo) -> None:
    store = machine.store
    front, back = f"/local/domain/{guest.domid}/device/echo/5", f"/local/domain/0/backend/echo/{guest.domid}/5"
    assert machine.call(lambda: store.get(f"{front}/backend")) == back.encode()
    assert machine.call(lambda: store.get(f"{front}/colour")) == b"red"
    assert machine.call(lambda: store.get(f"{back}/frontend")) == front.encode()
    assert machine.call(lambda: store.get(f"{back}/feature-echo")) == b"1"
    assert machine.call(lambda: store.get(f"{back}/state")) == b"2"
    permissions = machine.call(lambda: (store.permissions(front), store.permissions(f"{back}/feature-echo")))
    assert [[entry.encode() for entry in one or ()] for one in permissions] == [
        [b"n%d" % guest.domid, b"r0"],
        [b"n0", b"r%d" % guest.domid],
    ]


def test_requests_are_answered(guest: FrontendGuest, echo: Echo) -> None:
    front = Front(guest, echo.nodes)
    assert guest.backend_node(echo.nodes, "state") == "4"
    assert guest.backend_node(echo.nodes, "sectors") == "7"
    for round_ in range(30):
        requests = [bytes([round_, i]) * 8 for i in range(round_ + 1)]
        assert front.ask(requests) == [request[::-1] for request in requests]


def test_it_is_taken_down_and_set_up_again_under_load(machine: Machine, guest: FrontendGuest, echo: Echo) -> None:
    front = Front(guest, echo.nodes)
    for round_ in range(20):
        front.ring.put([bytes([round_]) * SIZE] * 100)
        guest.send(front.port)
        front.state(xenbus.XenbusStateClosed if round_ % 2 else xenbus.XenbusStateInitialising)
        assert not guest.is_mapped(front.ref)
        front.state(xenbus.XenbusStateInitialising)
        assert guest.backend_node(echo.nodes, "state") == "2"
        front.begin()
        assert front.ask([bytes(range(SIZE))]) == [bytes(range(SIZE))[::-1]]
    with machine.host.lock:
        require_clean(machine.host)


@pytest.mark.parametrize(
    ("nodes", "why"),
    [
        ({"ring_ref": 400}, "grant 400"),
        ({"ring_ref": "-1"}, "ring-ref"),
        ({"ring_ref": "9" * 30}, "ring-ref"),
        ({"ring_ref": ""}, "ring-ref"),
        ({"ring_ref": "\xb2"}, "ring-ref"),
        ({"event_channel": 999}, "event channel 999"),
        ({"event_channel": "x"}, "event-channel"),
        ({"state": "connected"}, "state"),
        ({"state": "77"}, "state"),
    ],
)
def test_nonsense_in_its_nodes(guest: FrontendGuest, echo: Echo, nodes: dict[str, object], why: str) -> None:
    page = guest.frame()
    FrontRing([page], SIZE)
    good: dict[str, object] = {"ring_ref": guest.grant(page), "event_channel": guest.port(), "state": 4}
    guest.publish(echo.nodes, **{**good, **nodes})
    assert echo.fault is not None
    assert why in echo.fault
    assert guest.backend_node(echo.nodes, "state") == "5"
    error = guest.machine.call(lambda: guest.machine.store.get(echo.nodes.error))
    assert error is not None
    assert error.decode() in echo.fault
    guest.publish(echo.nodes, state=6)
    guest.publish(echo.nodes, state=1)
    front = Front(guest, echo.nodes)
    assert front.ask([bytes(SIZE)]) == [bytes(SIZE)]
    assert echo.fault is None


def test_indices_that_make_no_sense_end_the_connection(guest: FrontendGuest, echo: Echo) -> None:
    front = Front(guest, echo.nodes)
    front.ring.set_index("req_prod", 0x80000000)
    guest.send(front.port)
    guest.machine.call(lambda: None)
    wait_for(lambda: echo.fault, "a fault")
    assert "request index" in (echo.fault or "")
    assert guest.backend_node(echo.nodes, "state") == "5"
    assert not guest.is_mapped(front.ref)


def test_a_domains_end(machine: Machine, guest: FrontendGuest, echo: Echo) -> None:
    Front(guest, echo.nodes)
    gone: list[bool] = []
    echo.on_gone = lambda: gone.append(True)
    machine.call(echo.destroy)
    assert gone == [True]
    guest.domain.destroy()
    assert machine.call(lambda: machine.store.get(echo.nodes.backend)) is None
    assert guest.domid not in machine.host.zombies


def test_timers_fire_in_their_order(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are set at one time: a clock that went on meanwhile could have the last one due before the first."""
    fired: list[int] = []
    services = machine._services

    def set_timers() -> None:
        now = time.monotonic()
        with monkeypatch.context() as patch:
            patch.setattr(services_module, "time", SimpleNamespace(monotonic=lambda: now))
            for number in (3, 1, 2):
                services.call_later(number / 1000, lambda number=number: fired.append(number))  # type: ignore[misc]

    machine.call(set_timers)
    wait_for(lambda: len(fired) == 3, "three timers")
    assert fired == [1, 2, 3]
