"""The block backend, request by request, with a frontend that the test plays."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from paravirt import Machine
from paravirt.abi import grant_table
from paravirt.abi.io import blkif, xenbus
from paravirt.domain0.block.backend import LAST_WORDS, DiskOptions
from paravirt.domain0.block.ending import LINGER, QUIET_LOOKS
from paravirt.domain0.block.image import Buffers, RawImage
from paravirt.domain0.block.rate import BURST
from paravirt.hypervisor.audit import require_clean

from ...patience import PATIENCE, wait_for
from ..devices.frontends import FrontendGuest
from .conftest import DISK_SIZE, MakeDisk
from .fronts import BlockFront, discard, indirect, rw

READ, WRITE = blkif.BLKIF_OP_READ, blkif.BLKIF_OP_WRITE
BARRIER, FLUSH = blkif.BLKIF_OP_WRITE_BARRIER, blkif.BLKIF_OP_FLUSH_DISKCACHE
OKAY, ERROR, UNSUPPORTED = blkif.BLKIF_RSP_OKAY, blkif.BLKIF_RSP_ERROR, blkif.BLKIF_RSP_EOPNOTSUPP
SECTORS = DISK_SIZE // 512


def pattern(length: int, seed: int = 1) -> bytes:
    return bytes((i * 7 + i // 256 + seed) % 256 for i in range(length))


class Logged(RawImage):
    """An image that writes down what is done to it, and whose reads can be held up or fail."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, False)
        self.log: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.bad = range(0)

    def read_at_once(self, offset: int, buffers: Buffers) -> bool:
        return False

    def write_at_once(self, offset: int, buffers: Buffers) -> bool:
        return False

    def read(self, offset: int, buffers: Buffers) -> None:
        length = sum(map(len, buffers))
        self.log.append(f"read {offset} {length}")
        self.gate.wait(PATIENCE)
        if set(range(offset // 512, (offset + length) // 512)) & set(self.bad):
            raise OSError(errno.EIO, "a bad sector")
        super().read(offset, buffers)

    def write(self, offset: int, buffers: Buffers) -> None:
        self.log.append(f"write {offset} {sum(map(len, buffers))}")
        super().write(offset, buffers)

    def flush(self) -> None:
        self.log.append("flush")
        super().flush()


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("order", [0, 2])
def test_bytes_go_both_ways(
    guest: FrontendGuest, make_disk: MakeDisk, path: Path, persistent: bool, order: int
) -> None:
    front = BlockFront(guest, make_disk(), persistent=persistent, order=order)
    content = bytearray(path.read_bytes())
    assert front.read(8, 4096 * 11) == content[4096 : 4096 * 12]
    for step, (sector, length) in enumerate([(0, 512), (3, 4096 * 3 + 1536), (SECTORS - 1, 512), (100, 4096 * 11)]):
        data = pattern(length, step)
        assert front.write(sector, data) == OKAY
        content[sector * 512 : sector * 512 + length] = data
        assert front.read(sector, length) == data
    assert path.read_bytes() == content
    # Frames stay mapped if, and only if, that was agreed on.
    assert guest.is_mapped(front.refs[0]) == persistent


def test_parts_of_frames(guest: FrontendGuest, make_disk: MakeDisk, path: Path) -> None:
    front = BlockFront(guest, make_disk())
    for frame in front.frames:
        frame.write(0, b"\xaa" * 4096)
    segments = [(front.refs[0], 3, 3), (front.refs[1], 0, 7), (front.refs[1], 2, 4), (front.refs[2], 7, 7)]
    assert front.queue.ask(rw(READ, 5, 16, segments)) == {5: OKAY}
    disk = path.read_bytes()[16 * 512 :]
    aa = b"\xaa"
    assert front.frames[0].read(0, 4096) == aa * 1536 + disk[:512] + aa * 2048
    expected = bytearray(disk[512:4608])
    expected[1024:2560] = disk[4608:6144]
    assert front.frames[1].read(0, 4096) == expected
    assert front.frames[2].read(0, 4096) == aa * 3584 + disk[6144:6656]


@pytest.mark.parametrize("persistent", [False, True])
def test_indirect_segments(guest: FrontendGuest, make_disk: MakeDisk, path: Path, persistent: bool) -> None:
    front = BlockFront(guest, make_disk(), persistent=persistent, frames=130)
    table = guest.frame()
    ref = guest.grant(table)
    described = b"".join(segment_ref.to_bytes(4, "little") + bytes([0, 7, 0, 0]) for segment_ref in front.refs)
    table.write(0, described)
    assert front.queue.ask(indirect(READ, 9, 8, [ref], 130)) == {9: OKAY}
    assert front.held(130 * 4096) == path.read_bytes()[4096 : 131 * 4096]
    data = pattern(130 * 4096, 3)
    front.fill(data)
    front.queue.send([indirect(WRITE, 10, 0, [ref], 130)])
    assert front.queue.answers(1) == {10: (WRITE, OKAY)}
    assert path.read_bytes()[: len(data)] == data


def test_several_queues_and_full_rings(guest: FrontendGuest, make_disk: MakeDisk, path: Path) -> None:
    front = BlockFront(guest, make_disk(), queues=3, order=1, persistent=True)
    for number, queue in enumerate(front.queues):
        queue.send([rw(READ, i, 8 * i + number, [(front.refs[number], 0, 0)]) for i in range(64)])
    for queue in front.queues:
        assert queue.answers(64) == dict.fromkeys(range(64), (READ, OKAY))


def test_adjacent_requests_are_merged(guest: FrontendGuest, make_disk: MakeDisk, path: Path) -> None:
    image = Logged(path)
    front = BlockFront(guest, make_disk(image))
    requests = [rw(WRITE, i, 8 * i, [(front.refs[i], 0, 7)]) for i in range(8)]
    requests += [rw(WRITE, 8, 200, [(front.refs[8], 0, 7)]), rw(READ, 9, 208, [(front.refs[9], 0, 7)])]
    data = pattern(9 * 4096)
    front.fill(data)
    assert front.queue.ask(*requests) == dict.fromkeys(range(10), OKAY)
    assert sorted(image.log) == ["read 106496 4096", "write 0 32768", "write 102400 4096"]
    assert path.read_bytes()[: 8 * 4096] == data[: 8 * 4096]


def test_errors_reach_the_guest_and_only_their_request(
    guest: FrontendGuest, make_disk: MakeDisk, path: Path
) -> None:
    image = Logged(path)
    image.bad = range(9, 10)
    front = BlockFront(guest, make_disk(image))
    answers = front.queue.ask(*[rw(READ, i, 8 * i, [(front.refs[i], 0, 7)]) for i in range(4)])
    assert answers == {0: OKAY, 1: ERROR, 2: OKAY, 3: OKAY}
    assert image.log[0] == "read 0 16384"
    assert front.device.counts.errors == 1
    assert front.device.counts.read_bytes == 3 * 4096


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (rw(READ, 1, 0, [], 0), ERROR),
        (rw(READ, 1, 0, [], 12), ERROR),
        (rw(READ, 1, 0, [], 255), ERROR),
        (rw(READ, 1, 0, [(20, 4, 3)]), ERROR),
        (rw(READ, 1, 0, [(20, 0, 8)]), ERROR),
        (rw(READ, 1, 0, [(20, 255, 255)]), ERROR),
        (rw(READ, 1, SECTORS, [(20, 0, 0)]), ERROR),
        (rw(READ, 1, SECTORS - 1, [(20, 0, 1)]), ERROR),
        (rw(READ, 1, 2**64 - 1, [(20, 0, 0)]), ERROR),
        (rw(READ, 1, 2**55, [(20, 0, 0)]), ERROR),
        (rw(READ, 1, 0, [(500, 0, 0)]), ERROR),
        (rw(WRITE, 1, 0, [(0xFFFFFFFF, 0, 0)]), ERROR),
        (rw(4, 1, 0, [(20, 0, 0)]), UNSUPPORTED),
        (rw(7, 1, 0, [(20, 0, 0)]), UNSUPPORTED),
        (rw(255, 1, 0), UNSUPPORTED),
        (discard(1, SECTORS - 1, 2), ERROR),
        (discard(1, 0, 2**64 - 1), ERROR),
        (indirect(READ, 1, 0, [20], 0), ERROR),
        (indirect(READ, 1, 0, [20], 257), ERROR),
        (indirect(READ, 1, 0, [20], 0xFFFF), ERROR),
        (indirect(READ, 1, 0, [500], 1), ERROR),
        (indirect(FLUSH, 1, 0, [20], 1), ERROR),
        (indirect(6, 1, 0, [20], 1), ERROR),
    ],
)
def test_nonsense_is_answered_with_an_error(
    machine: Machine, guest: FrontendGuest, make_disk: MakeDisk, path: Path, request_: bytes, status: int
) -> None:
    """To that request alone: the next one is served, and nothing of the disk or the guest has changed."""
    before = path.read_bytes()
    front = BlockFront(guest, make_disk())
    assert front.queue.ask(request_) == {1: status}
    assert path.read_bytes() == before
    assert front.read(0, 512) == before[:512]
    with machine.host.lock:
        require_clean(machine.host)


@pytest.mark.parametrize("segment", [(4, 3), (0, 8)])
def test_descriptions_that_make_no_sense_are_given_back(
    machine: Machine, guest: FrontendGuest, make_disk: MakeDisk, segment: tuple[int, int]
) -> None:
    front = BlockFront(guest, make_disk())
    table = guest.frame()
    table.write(0, front.refs[0].to_bytes(4, "little") + bytes(segment))
    ref = guest.grant(table)
    assert front.queue.ask(indirect(READ, 1, 0, [ref], 1)) == {1: ERROR}
    machine.call(lambda: None)
    assert not guest.is_mapped(ref)


def test_a_disk_that_is_only_read(guest: FrontendGuest, make_disk: MakeDisk, path: Path) -> None:
    before = path.read_bytes()
    for device in (make_disk(readonly=True), make_disk(options=DiskOptions(is_cdrom=True), readonly=True)):
        front = BlockFront(guest, device)
        assert front.write(0, bytes(512)) == ERROR
        assert front.queue.ask(discard(7, 0, 8)) == {7: ERROR}
        assert front.read(0, 512) == before[:512]
        assert path.read_bytes() == before
        info = guest.backend_node(device.nodes, "info")
        assert info == str(blkif.VDISK_READONLY | (blkif.VDISK_CDROM if device.options.is_cdrom else 0))
        assert guest.backend_node(device.nodes, "feature-discard") is None


def test_frames_that_are_only_to_be_read(guest: FrontendGuest, make_disk: MakeDisk, path: Path) -> None:
    """A frontend may grant what it writes read-only; reading into it is refused."""
    front = BlockFront(guest, make_disk())
    frame = guest.frame()
    frame.write(0, pattern(4096))
    ref = guest.grant(frame, grant_table.GTF_permit_access | grant_table.GTF_readonly)
    assert front.queue.ask(rw(WRITE, 1, 0, [(ref, 0, 7)])) == {1: OKAY}
    assert path.read_bytes()[:4096] == pattern(4096)
    assert front.queue.ask(rw(READ, 2, 8, [(ref, 0, 7)])) == {2: ERROR}
    assert frame.read(0, 4096) == pattern(4096)


def test_flush_and_barrier(guest: FrontendGuest, make_disk: MakeDisk, path: Path) -> None:
    image = Logged(path)
    front = BlockFront(guest, make_disk(image))
    assert front.queue.ask(rw(FLUSH, 1, 0)) == {1: OKAY}
    assert image.log == ["flush"]
    assert front.write(0, pattern(512), FLUSH) == OKAY
    assert image.log[1:] == ["flush", "write 0 512", "flush"]
    image.log.clear()
    # What came before a barrier has ended before it begins.
    image.gate.clear()
    front.queue.send([
        rw(READ, 1, 0, [(front.refs[1], 0, 0)]),
        rw(BARRIER, 2, 0, [(front.refs[0], 0, 0)]),
        rw(FLUSH, 3, 0),
    ])  # fmt: skip
    wait_for(lambda: image.log, "a read that begins")
    assert front.queue.answers(1, 0.05) == {}
    assert image.log == ["read 0 512"]
    image.gate.set()
    assert front.queue.answers(3) == {1: (READ, OKAY), 2: (BARRIER, OKAY), 3: (FLUSH, OKAY)}
    assert image.log[:2] == ["read 0 512", "flush"]
    assert image.log.count("flush") == 3
    front.queue.send([rw(READ, number, 0, [(front.refs[1], 0, 0)]) for number in range(20)])
    assert len(front.queue.answers(20)) == 20


def test_discarding(guest: FrontendGuest, make_disk: MakeDisk, path: Path) -> None:
    device = make_disk()
    front = BlockFront(guest, device)
    blocks = path.stat().st_blocks
    assert guest.backend_node(device.nodes, "feature-discard") == "1"
    assert front.queue.ask(discard(1, 0, 1024)) == {1: OKAY}
    assert path.stat().st_size == DISK_SIZE
    assert path.stat().st_blocks < blocks
    assert front.read(0, 4096) == bytes(4096)
    without = BlockFront(guest, make_disk(RawImage(path, False, shared=True), DiskOptions(discard=False)))
    assert without.queue.ask(discard(1, 0, 1024)) == {1: UNSUPPORTED}


def test_large_sectors(guest: FrontendGuest, make_disk: MakeDisk, path: Path) -> None:
    """A frontend counts in 512 bytes, unless it says that it counts the disk's own sectors."""
    content = path.read_bytes()
    device = make_disk(options=DiskOptions(sector_size=4096))
    front = BlockFront(guest, device)
    assert guest.backend_node(device.nodes, "sector-size") == "4096"
    assert guest.backend_node(device.nodes, "sectors") == str(SECTORS)
    assert front.read(8, 4096) == content[4096:8192]
    assert front.queue.ask(rw(READ, 3, 1, [(front.refs[0], 0, 7)])) == {3: ERROR}
    assert front.queue.ask(rw(READ, 3, 0, [(front.refs[0], 0, 0)])) == {3: ERROR}
    front.state(xenbus.XenbusStateClosed)
    front.state(xenbus.XenbusStateInitialising)
    front.nodes = {"feature_large_sector_size": 1}
    front.connect()
    assert guest.backend_node(device.nodes, "sectors") == str(SECTORS // 8)
    assert front.read(1, 4096) == content[4096:8192]


def test_resizing_while_attached(guest: FrontendGuest, make_disk: MakeDisk, path: Path, machine: Machine) -> None:
    device = make_disk()
    front = BlockFront(guest, device)
    told: list[str] = []
    machine.call(lambda: machine.store.watch(f"{device.nodes.backend}/state", told.append))
    with path.open("r+b") as file:
        file.truncate(2 * DISK_SIZE)
    assert front.read(0, 512)
    assert guest.backend_node(device.nodes, "sectors") == str(2 * SECTORS)
    assert len(told) == 2
    assert front.write(2 * SECTORS - 1, pattern(512)) == OKAY
    assert path.read_bytes()[-512:] == pattern(512)


def test_a_rate_limit(guest: FrontendGuest, make_disk: MakeDisk) -> None:
    """More than may be used at once takes a while, or longer; how long exactly is the bucket's own test."""
    rate, size = 1 << 20, 11 * 4096
    front = BlockFront(guest, make_disk(options=DiskOptions(rate=rate)))
    begin = time.monotonic()
    for _ in range(8):
        assert front.write(0, pattern(size)) == OKAY
    # What was left in the beginning was used before the last one was, which is waited for afterwards.
    assert time.monotonic() - begin > (7 * size) / rate - BURST - 0.01


@pytest.mark.parametrize("how", ["close", "crash", "end"])
def test_requests_in_flight_when_the_connection_ends(
    machine: Machine, guest: FrontendGuest, make_disk: MakeDisk, path: Path, how: str
) -> None:
    """Their frames stay mapped until they have ended; a frontend that has closed has all its answers then, and
    nothing is answered into what is not a ring any more."""
    image = Logged(path)
    front = BlockFront(guest, make_disk(image))
    image.gate.clear()
    queue = front.queue
    queue.send([rw(READ, i, 80 * i, [(front.refs[i], 0, 7)]) for i in range(8)])
    wait_for(lambda: image.log, "a read that begins")
    if how == "end":
        machine.call(front.device.destroy)
        guest.domain.destroy()
        assert guest.domid in machine.host.zombies
    else:
        front.state(xenbus.XenbusStateClosed if how == "close" else xenbus.XenbusStateInitialising)
        assert guest.backend_node(front.device.nodes, "state") == "4"
        assert guest.is_mapped(front.refs[0])
    image.gate.set()
    if how == "end":
        wait_for(lambda: guest.domid not in machine.host.zombies, "the domain's end")
        return
    expected = "6" if how == "close" else "2"
    wait_for(lambda: guest.backend_node(front.device.nodes, "state") == expected, "the backend's next state")
    assert not any(guest.is_mapped(ref) for ref in front.refs)
    assert len(queue.answers(1, 0.01)) == (8 if how == "close" else 0)
    front.state(xenbus.XenbusStateInitialising)
    front.connect()
    assert front.read(0, 512) == path.read_bytes()[:512]


def test_a_frontend_that_lets_go_has_its_last_requests_answered(
    machine: Machine, guest: FrontendGuest, make_disk: MakeDisk, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those that it held back until an event came after it had closed; then all is given back."""
    services, over = machine._services, list[Callable[[], None]]()
    call_later = services.call_later

    def note(delay: float, function: Callable[[], None]) -> None:
        if delay == LINGER:
            over.append(function)  # not before the test says so, however slow it is
        else:
            call_later(delay, function)

    monkeypatch.setattr(services, "call_later", note)
    front = BlockFront(guest, make_disk(), persistent=True)
    assert front.read(0, 512) == path.read_bytes()[:512]
    machine.call(front.device.close)
    assert guest.backend_node(front.device.nodes, "state") == "5"
    front.state(xenbus.XenbusStateClosed)
    for _ in range(3):
        assert front.read(1, 4096) == path.read_bytes()[512:4608]
    for _ in range(QUIET_LOOKS):
        assert guest.backend_node(front.device.nodes, "state") == "5"
        machine.call(over.pop())
    assert front.read(1, 4096) == path.read_bytes()[512:4608], "there were some before the first of these looks"
    for _ in range(QUIET_LOOKS + 1):
        assert guest.backend_node(front.device.nodes, "state") == "5"
        machine.call(over.pop())
    assert not over
    wait_for(lambda: guest.backend_node(front.device.nodes, "state") == "6", "Closed")
    assert not any(guest.is_mapped(ref) for ref in [*front.refs, *front.queue.refs])


@pytest.mark.parametrize("closes", [True, False])
def test_a_disk_that_is_taken_away_answers_with_errors(
    machine: Machine,
    guest: FrontendGuest,
    make_disk: MakeDisk,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    closes: bool,
) -> None:
    """Whatever the guest asks for then, also what waited for its turn, until it has closed the disk, or has had time
    for that."""
    services, ends, over = machine._services, list[Callable[[], None]](), list[Callable[[], None]]()
    call_later = services.call_later

    def note(delay: float, function: Callable[[], None]) -> None:
        if delay == LAST_WORDS:
            ends.append(function)
        elif delay == LINGER:
            over.append(function)  # not before the test says so, however slow it is
        else:
            call_later(delay, function)

    monkeypatch.setattr(services, "call_later", note)
    before = path.read_bytes()
    front = BlockFront(guest, make_disk(options=DiskOptions(rate=1)), persistent=True)
    assert front.write(0, pattern(4096)) == OKAY
    waiting = [rw(WRITE, 7, 8, [(front.refs[0], 0, 7)]), rw(FLUSH, 8, 0)]
    front.queue.send(waiting)  # for a turn that is an hour away
    machine.call(front.device.revoke)
    assert front.queue.answers(2) == {7: (WRITE, ERROR), 8: (FLUSH, ERROR)}
    assert guest.backend_node(front.device.nodes, "state") == "5"
    if closes:
        assert front.queue.ask(rw(READ, 9, 0, [(front.refs[0], 0, 7)])) == {9: ERROR}
        front.state(xenbus.XenbusStateClosed)
    assert front.queue.ask(rw(READ, 10, 0, [(front.refs[0], 0, 7)])) == {10: ERROR}
    (end,) = ends
    if not closes:
        machine.call(end)
    while over:
        machine.call(over.pop())
    wait_for(lambda: guest.backend_node(front.device.nodes, "state") == "6", "Closed")
    assert not any(guest.is_mapped(ref) for ref in [*front.refs, *front.queue.refs])
    assert path.read_bytes() == pattern(4096) + before[4096:]


def test_an_image_that_cannot_be_closed_well_keeps_no_device(
    machine: Machine, guest: FrontendGuest, make_disk: MakeDisk, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Full(RawImage):
        def close(self) -> None:
            super().close()
            raise OSError(errno.ENOSPC, "no room")

    device = make_disk(Full(path, False))
    gone: list[bool] = []
    device.on_gone = lambda: gone.append(True)
    machine.call(device.destroy)
    assert gone and "no room" in caplog.text


def test_set_up_again_and_again_under_load(
    machine: Machine, guest: FrontendGuest, make_disk: MakeDisk, path: Path
) -> None:
    front = BlockFront(guest, make_disk(), persistent=True)
    for round_ in range(12):
        front.queue.send([rw(WRITE, i, 8 * i, [(front.refs[i % 16], 0, 7)]) for i in range(32)])
        front.state(xenbus.XenbusStateClosed if round_ % 2 else xenbus.XenbusStateInitialising)
        front.state(xenbus.XenbusStateInitialising)
        wait_for(lambda: guest.backend_node(front.device.nodes, "state") == "2", "InitWait")
        assert not any(guest.is_mapped(ref) for ref in front.refs)
        front.connect()
        assert front.write(0, pattern(512, round_)) == OKAY
        assert front.read(0, 512) == pattern(512, round_)


@pytest.mark.parametrize(
    ("nodes", "why"),
    [
        ({"protocol": "x86_32-abi"}, "protocol"),
        ({"ring_page_order": 5}, "ring-page-order"),
        ({"multi_queue_num_queues": 0}, "queues"),
        ({"multi_queue_num_queues": 5}, "multi-queue"),
        ({"multi_queue_num_queues": 2}, "queue-0"),
    ],
)
def test_rings_that_cannot_be(guest: FrontendGuest, make_disk: MakeDisk, nodes: dict[str, object], why: str) -> None:
    device = make_disk()
    BlockFront(guest, device, **nodes)  # type: ignore[arg-type]
    assert why in (device.fault or "")
    assert guest.backend_node(device.nodes, "state") == "5"


def test_a_ring_that_overflows_ends_that_connection_alone(
    guest: FrontendGuest, make_disk: MakeDisk, path: Path
) -> None:
    bad = BlockFront(guest, make_disk())
    good = BlockFront(guest, make_disk(RawImage(path, False, shared=True)), frames=1)
    bad.queue.ring.set_index("req_prod", 33)
    guest.send(bad.queue.port)
    wait_for(lambda: bad.device.fault, "a fault")
    assert "request index" in (bad.device.fault or "")
    assert good.read(0, 512) == path.read_bytes()[:512]


def test_a_grant_that_is_taken_back_meanwhile(
    machine: Machine, guest: FrontendGuest, make_disk: MakeDisk, path: Path
) -> None:
    """The frame stays the guest's until the request has ended; afterwards the grant is no good."""
    image = Logged(path)
    front = BlockFront(guest, make_disk(image))
    image.gate.clear()
    front.queue.send([rw(READ, 1, 8, [(front.refs[0], 0, 7)])])
    wait_for(lambda: image.log, "a read that begins")
    guest.revoke(front.refs[0])
    with machine.host.lock:
        guest.view.release_page(front.frames[0].mfn)
        assert machine.host.frame_info(front.frames[0].mfn)[0] == guest.domid
    image.gate.set()
    assert front.queue.answers(1) == {1: (READ, OKAY)}
    assert front.queue.ask(rw(READ, 2, 8, [(front.refs[0], 0, 7)])) == {2: ERROR}
