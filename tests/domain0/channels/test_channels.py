"""Channels of a domain whose kernel is played by the test: their nodes, their bytes, and their ends."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from paravirt import Machine, UserError
from paravirt.domain0.channels.stream import OUTPUT_LIMIT
from paravirt.domain0.devices.registry import Device
from paravirt.domain0.devices.spec import DeviceSpec
from paravirt.domain0.ring import CONSOLE_IN, CONSOLE_OUT, ByteRing
from paravirt.domain0.store.tree import Permission
from paravirt.domain0.xlcfg.channels import channel_spec, channel_to_libxl, parse_channel

from ...hypervisor.audited import audited
from ...leftovers import Leftovers
from ...patience import PATIENCE
from ..devices.frontends import FrontendGuest

INITIALISED, CONNECTED, CLOSED = 3, 4, 6


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine(memory=32) as made, audited(made):
        yield made


class Front:
    """The guest's half of one channel."""

    def __init__(self, guest: FrontendGuest, spec: DeviceSpec) -> None:
        self.guest = guest
        self.device: Device = guest.domain.attach(spec)
        self.frame = guest.frame()
        self.output, self.input = ByteRing(self.frame, CONSOLE_OUT), ByteRing(self.frame, CONSOLE_IN)
        self.ref, self.port = guest.grant(self.frame), guest.port()
        guest.publish(self.device.nodes, ring_ref=self.ref, port=self.port, state=INITIALISED)

    @property
    def state(self) -> str | None:
        return self.guest.backend_node(self.device.nodes, "state")

    def node(self, name: str) -> str:
        machine = self.guest.machine
        return (machine.call(lambda: machine.store.get(f"{self.device.nodes.frontend}/{name}")) or b"").decode()

    def kick(self) -> None:
        self.guest.send(self.port)
        for _ in range(3):
            self.guest.machine.call(lambda: None)

    def say(self, data: bytes) -> int:
        count = self.output.put(data)
        self.kick()
        return count

    def hear(self, count: int) -> bytes:
        heard = b""
        while len(heard) < count:
            heard += self.input.take()
            self.kick()
        return heard


def read(fd: int, count: int) -> bytes:
    found = b""
    while len(found) < count:
        assert select.select([fd], [], [], PATIENCE)[0], found
        found += os.read(fd, count - len(found))
    return found


def test_the_nodes_are_those_that_libxl_writes(machine: Machine, guest: FrontendGuest, tmp_path: Path) -> None:
    front = Front(guest, channel_spec("org.example.agent", tmp_path / "agent"))
    assert front.device.devid == 1
    for name, value in {"backend-id": "0", "protocol": "vt100", "limit": "1048576", "type": "ioemu", "tty": "",
                        "output": "chardev:libxl-channel1", "name": "org.example.agent"}.items():  # fmt: skip
        assert front.node(name) == value
    for name, value in {"frontend-id": str(guest.domid), "online": "1", "protocol": "vt100", "connection": "socket",
                        "name": "org.example.agent", "path": str(tmp_path / "agent")}.items():  # fmt: skip
        assert guest.backend_node(front.device.nodes, name) == value
    at = front.device.nodes.frontend
    assert machine.call(lambda: machine.store.permissions(f"{at}/tty")) == (
        Permission("n", 0), Permission("r", guest.domid),
    )  # fmt: skip
    assert machine.call(lambda: machine.store.permissions(at)) == (Permission("n", guest.domid), Permission("r", 0))
    second = Front(guest, channel_spec("second"))
    assert second.device.devid == 2 and second.node("output") == "pty"


def test_a_terminal(guest: FrontendGuest) -> None:
    front = Front(guest, channel_spec("x"))
    assert front.state == str(CONNECTED)
    front.say(b"said before anybody came\n")
    terminal = os.open(front.node("tty"), os.O_RDWR | os.O_NOCTTY)
    try:
        assert read(terminal, 25) == b"said before anybody came\n"
        os.write(terminal, b"typed\n")
        assert front.hear(6) == b"typed\n"
    finally:
        os.close(terminal)
    # Nobody reads, and the guest does not wait: of what it says, the last is kept.
    line = b"0123456789abcdef" * 64
    for _ in range(2 * OUTPUT_LIMIT // len(line)):
        assert front.say(line) == len(line)
    terminal = os.open(front.node("tty"), os.O_RDWR | os.O_NOCTTY)
    try:
        front.say(b"!")
        kept = bytearray()
        while not kept.endswith(b"!"):
            kept += read(terminal, 1)
            kept += os.read(terminal, 1 << 16) if select.select([terminal], [], [], 0)[0] else b""
        assert OUTPUT_LIMIT <= len(kept) < 2 * OUTPUT_LIMIT
    finally:
        os.close(terminal)


def test_a_socket_serves_one_after_the_other(guest: FrontendGuest, tmp_path: Path) -> None:
    path = tmp_path / "agent"
    front = Front(guest, channel_spec("agent", path))
    front.say(b"to nobody")
    for turn in (b"first", b"second"):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(str(path))
            client.sendall(b"from the " + turn)
            assert front.hear(9 + len(turn)) == b"from the " + turn
            front.say(b"to the " + turn)
            assert client.recv(100) == b"to the " + turn


def test_a_client_that_does_not_read_holds_the_guest_up_and_nobody_else(
    machine: Machine, guest: FrontendGuest, tmp_path: Path
) -> None:
    front, other = Front(guest, channel_spec("slow", tmp_path / "slow")), Front(guest, channel_spec("other"))
    sent, line = bytearray(), bytes(range(256)) * 4
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        client.connect(str(tmp_path / "slow"))
        client.sendall(b"!")
        assert front.hear(1) == b"!"
        while count := front.say(line):
            sent += line[:count]
        assert len(sent) > OUTPUT_LIMIT
        assert other.say(b"works") == 5 and other.say(b"on") == 2
        received = bytearray()
        while len(received) < len(sent):
            received += client.recv(1 << 16)
            front.kick()
        assert received == sent, "nothing is lost"


def test_what_a_client_sent_before_it_went_arrives(guest: FrontendGuest, tmp_path: Path) -> None:
    front = Front(guest, channel_spec("x", tmp_path / "x"))
    for number in range(3):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(str(tmp_path / "x"))
            client.sendall(bytes([number]) * 6000)
    assert front.hear(18000) == b"".join(bytes([number]) * 6000 for number in range(3))


def test_one_that_goes_in_the_middle(guest: FrontendGuest, tmp_path: Path) -> None:
    front = Front(guest, channel_spec("x", tmp_path / "x"))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "x"))
        client.sendall(b"!")
        front.hear(1)
        while front.say(bytes(1024)):
            continue
    while not front.say(b"again"):
        continue
    assert front.state == str(CONNECTED)


@pytest.mark.parametrize("terminal", [True, False])
def test_detached_it_gives_everything_back(
    machine: Machine, guest: FrontendGuest, tmp_path: Path, terminal: bool
) -> None:
    before = Leftovers()
    front = Front(guest, channel_spec("x", None if terminal else tmp_path / "x"))
    with socket.socket(socket.AF_UNIX) as client:
        if not terminal:
            client.connect(str(tmp_path / "x"))
        assert guest.is_mapped(front.ref)
        guest.domain.detach(front.device, force=True)
        machine.call(lambda: None)
    assert not guest.is_mapped(front.ref)
    assert not (tmp_path / "x").exists()
    assert machine.call(lambda: machine.devices.of(guest.domid)) == []
    assert machine.call(lambda: machine.store.get(front.device.nodes.frontend)) is None
    assert before.stay() == []


def test_indices_that_lie_end_that_channel_alone(guest: FrontendGuest) -> None:
    front, other = Front(guest, channel_spec("bad")), Front(guest, channel_spec("good"))
    front.frame.write(CONSOLE_OUT.producer, (5000).to_bytes(4, "little"))
    front.kick()
    assert front.state == "5" and "5000 apart" in (front.device.backend.fault or "")
    assert not guest.is_mapped(front.ref)
    assert other.say(b"x") == 1 and other.state == str(CONNECTED)


@pytest.mark.parametrize("wrong", [{"ring_ref": 4000}, {"port": 4000}, {"port": "x"}, {"ring_ref": -1}])
def test_nonsense_is_not_connected_to(guest: FrontendGuest, wrong: dict[str, object]) -> None:
    device = guest.domain.attach(channel_spec("x"))
    right = {"ring_ref": guest.grant(guest.frame()), "port": guest.port()}
    guest.publish(device.nodes, **(right | wrong), state=INITIALISED)
    assert guest.backend_node(device.nodes, "state") == "5"
    assert not guest.is_mapped(right["ring_ref"])


def test_a_socket_that_was_left_behind_is_replaced_and_one_in_use_is_not(
    machine: Machine, guest: FrontendGuest, tmp_path: Path
) -> None:
    left = tmp_path / "left"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(left))
    Front(guest, channel_spec("x", left))
    with pytest.raises(UserError, match="already in use"):
        guest.domain.attach(channel_spec("y", left))
    (tmp_path / "file").write_text("precious")
    with pytest.raises(UserError, match="already in use"):
        guest.domain.attach(channel_spec("y", tmp_path / "file"))
    with pytest.raises(UserError, match="No such file"):
        guest.domain.attach(channel_spec("y", tmp_path / "no" / "folder"))
    assert (tmp_path / "file").read_text() == "precious"
    assert len(machine.call(lambda: machine.devices.of(guest.domid))) == 1


def test_entries_of_the_list(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    pty = parse_channel("connection=pty, name=x")
    assert (pty.kind, pty.settings) == ("console", {"connection": "pty", "name": "x"})
    assert channel_to_libxl(pty) == {"name": "x", "connection.pty": {}}
    listening = parse_channel("name=y,connection=socket,path=here,backend=0")
    assert channel_to_libxl(listening) == {"name": "y", "connection.socket": {"path": f"{tmp_path}/here"}}
    for text, words in {
        "": "does not say", "name=x": "joined to", "connection=pty": "needs a name", "name=x,connection=tcp": "joined",
        "name=x,connection=socket": "needs a path", "name=x,connection=pty,colour=red": "nothing that a channel has",
        "name=x,connection=pty,backend=7": "Domain 0 only", "name=x,connection=pty,path=/y": "has no path",
        "name=x,connection=socket,path=/" + "p" * 107: "up to 107",
    }.items():  # fmt: skip
        with pytest.raises(UserError, match=words):
            parse_channel(text)


def test_at_most_nine(machine: Machine, guest: FrontendGuest) -> None:
    for number in range(9):
        guest.domain.attach(channel_spec(f"c{number}"))
    with pytest.raises(UserError, match="up to 9"):
        guest.domain.attach(channel_spec("one-more"))


def test_not_on_a_deterministic_machine() -> None:
    with Machine(memory=32, deterministic=True) as machine, pytest.raises(UserError, match="deterministic"):
        FrontendGuest(machine, devices=[channel_spec("x")])
