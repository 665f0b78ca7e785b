"""Requests that need no waiting are answered without Python: as Python would, and all others by it."""

from __future__ import annotations

import struct
from pathlib import Path
from random import Random

import pytest

from paravirt import Machine
from paravirt.abi.io import blkif
from paravirt.domain0.block.backend import BlockBackend, DiskOptions
from paravirt.domain0.block.image import RawImage

from ...patience import wait_for
from ..devices.frontends import FrontendGuest
from .conftest import DISK_SIZE, MakeDisk
from .fronts import BlockFront, discard, indirect, rw

MIB = 1 << 20
READ, WRITE, OKAY = blkif.BLKIF_OP_READ, blkif.BLKIF_OP_WRITE, blkif.BLKIF_RSP_OKAY
SECTORS = DISK_SIZE // 512


class Quick(RawImage):
    """An image that is tried again at once when the host's disk kept a write waiting.

    Attributes:
        slow: how often Python was told of that: the write after it was its.
    """

    slow = 0

    @property
    def is_quick(self) -> bool:
        return True

    def was_slow(self) -> None:
        self.slow += 1


@pytest.fixture
def make_disk(make_disk: MakeDisk, path: Path) -> MakeDisk:
    """Makes a device for the guest: of a quick image, or another."""

    def make(image: RawImage | None = None, options: DiskOptions | None = None) -> BlockBackend:
        return make_disk(image or Quick(path, False), options)

    return make


def by_itself(device: BlockBackend) -> tuple[int, int, int, int]:
    """Requests and bytes read, requests and bytes written, that its ring answered without Python."""
    (queue,) = device._queues
    return queue.counted()


def settled(machine: Machine) -> None:
    """Domain 0 has done what it had to do."""
    machine.call(lambda: None)
    machine.call(lambda: None)


def test_what_needs_no_waiting_needs_no_python(
    machine: Machine, guest: FrontendGuest, make_disk: MakeDisk, path: Path
) -> None:
    content = path.read_bytes()
    image = Quick(path, False)
    front = BlockFront(guest, make_disk(image), persistent=True, order=1)
    assert front.read(0, 4096 * 11) == content[: 4096 * 11]  # Python maps the frames, once
    for _ in range(40):  # around the ring, whose entries lie across its pages' border too
        settled(machine)
        assert front.read(7, 512 + 4096 * 2) == content[7 * 512 : 7 * 512 + 512 + 4096 * 2]
        settled(machine)
        assert front.write(100, content[:1536]) == OKAY
    writes = 40 - image.slow
    assert by_itself(front.device) == (40, 40 * 8704, writes, writes * 1536)
    counts = front.device.counts
    assert (counts.read_requests, counts.write_requests, counts.written_bytes) == (41, 40, 40 * 1536)
    assert path.read_bytes() == content[: 100 * 512] + content[:1536] + content[103 * 512 :]


@pytest.mark.parametrize("options", [DiskOptions(rate=1 << 30), DiskOptions(is_cdrom=True)])
def test_limits_hold(guest: FrontendGuest, make_disk: MakeDisk, options: DiskOptions, machine: Machine) -> None:
    """A disk with a rate is Python's altogether, and writes to one that is read only are."""
    front = BlockFront(guest, make_disk(options=options), persistent=True)
    for _ in range(3):
        front.read(0, 4096)
        settled(machine)
        assert front.write(0, bytes(512)) == (OKAY if options.rate else blkif.BLKIF_RSP_ERROR)
        settled(machine)
    requests, _, written, _ = by_itself(front.device)
    assert written == 0 and bool(requests) == (not options.rate)


def test_nobody_has_a_long_turn(machine: Machine, guest: FrontendGuest, make_disk: MakeDisk) -> None:
    """So much of a full ring is answered at a time; the rest is for the next turn, between other devices' ones."""
    front = BlockFront(guest, make_disk(), persistent=True, order=4, frames=11)
    front.read(0, 4096 * 11)
    settled(machine)
    length = 4096 * 11
    requests = [rw(READ, i, 0, front.segments(length)) for i in range(512)]

    def turn() -> tuple[tuple[bool, bool] | None, int]:
        front.queue.ring.put(requests)
        (queue,) = front.device._queues
        assert queue._direct is not None
        outcome = queue._direct.serve()
        return outcome, by_itself(front.device)[0]

    assert machine.call(turn) == ((True, True), -(-MIB // length))
    guest.send(front.queue.port)
    assert front.queue.answers(512) == dict.fromkeys(range(512), (READ, OKAY))


def some_request(random: Random, id_: int, front: BlockFront, table: int) -> bytes:
    """A request, often one that makes sense; the frames are its own."""
    sector = random.choice([0, 3, 8, 100, 512, 1000, SECTORS - 8, SECTORS - 1, SECTORS, 1 << 60])
    base = id_ * 3
    wrong = random.random() < 0.3
    refs = [*front.refs[base : base + 3], random.choice([0, 9999, 1 << 31])][: random.choice([1, 2, 3, 3 + wrong])]
    segments = [(ref, *random.choice([(0, 7), (2, 5), (7, 7), (5, 2), (0, 8)][: 3 + 2 * wrong])) for ref in refs]
    kind = random.randrange(10)
    if kind < 5:
        return rw(random.choice([READ, WRITE]), id_, sector, segments)
    if kind < 7:
        count = random.choice([0, 1, len(segments), 256, 257])
        described = b"".join(struct.pack("<IBBxx", *segment) for segment in segments)
        front.frames[table].write(0, described.ljust(2048, b"\0"))
        return indirect(random.choice([READ, WRITE, 7]), id_, sector, [front.refs[table]], count)
    if kind == 7:
        return discard(id_, sector, random.choice([1, 8, 1 << 40]))
    return rw(random.choice([2, 3, 4, 5, 6, 200]), id_, sector, segments, random.choice([None, 0, 11, 12, 255]))


@pytest.mark.parametrize("seed", range(6))
def test_answers_are_those_that_python_gives(
    machine: Machine, guest: FrontendGuest, make_disk: MakeDisk, path: Path, tmp_path: Path, seed: int
) -> None:
    """Any requests, sense and nonsense, one at a time and several: statuses, the disk and memory end up the same."""
    twin = tmp_path / "twin.img"
    twin.write_bytes(path.read_bytes())
    images = Quick(path, False), Quick(twin, False)
    images[1].direct_fd = -1
    one, other = (BlockFront(guest, make_disk(image), persistent=True, frames=13) for image in images)
    random = Random(seed)
    for _ in range(100):
        for number, (frame, same) in enumerate(zip(one.frames, other.frames, strict=True)):
            data = random.randbytes(64) * 64 if number < 12 else bytes(4096)
            frame.write(0, data)
            same.write(0, data)
        state = random.getstate()
        answers = []
        for front in (one, other):
            random.setstate(state)
            count = random.choice([1, 1, 1, 3])
            # Those that are under way together are about sectors of their own, or the order would matter.
            requests = [some_request(random, id_, front, 12) for id_ in range(count)]
            if count > 1:
                requests = [request for request in requests if request[0] in (READ, blkif.BLKIF_OP_FLUSH_DISKCACHE)]
            front.queue.send(requests)
            answers.append(front.queue.answers(len(requests)))
            settled(machine)
        assert answers[0] == answers[1]
        for frame, same in zip(one.frames[:12], other.frames[:12], strict=True):
            assert frame.read(0, 4096) == same.read(0, 4096)
    assert path.read_bytes() == twin.read_bytes()
    assert by_itself(other.device) == (0, 0, 0, 0)
    requests_read, _, requests_written, _ = by_itself(one.device)
    assert requests_read > 3 and requests_written > 0


def test_python_lets_go_of_the_ring_when_it_has_done_with_it(
    machine: Machine, guest: FrontendGuest, make_disk: MakeDisk, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the guest asks for while Python is still at work is carried out once."""
    front = BlockFront(guest, make_disk(), persistent=True)
    front.read(0, 4096)
    settled(machine)
    (queue,) = front.device._queues
    measure, direct = front.device.measure, queue._direct
    assert direct is not None
    served: list[tuple[bool, bool] | None] = []

    def measure_while_the_guest_goes_on() -> None:
        measure()
        if not served:
            front.queue.ring.put([rw(READ, 9, 8, [(front.refs[0], 0, 7)])])
            served.append(direct.serve())  # as the guest's physical CPU does
            guest.send(front.queue.port)

    monkeypatch.setattr(front.device, "measure", measure_while_the_guest_goes_on)
    front.queue.send([rw(READ, 8, 0, [(front.refs[1], 0, 7)])])  # a frame that Python is to map
    assert front.queue.answers(2) == {8: (READ, OKAY), 9: (READ, OKAY)}
    settled(machine)
    assert served == [(False, True)]
    assert front.queue.ring.index("rsp_prod") == front.queue.ring.req_prod
    assert front.read(16, 512) == path.read_bytes()[16 * 512 : 17 * 512]


class Busy:
    """A ring that a physical CPU's thread is working on, for some looks."""

    def __init__(self, direct: object, looks: int) -> None:
        self.direct, self.looks = direct, looks

    def serve(self) -> object:
        self.looks -= 1
        return None if self.looks >= 0 else self.direct.serve()  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> object:
        return getattr(self.direct, name)


def test_nobody_waits_for_who_works_on_a_ring(
    machine: Machine, guest: FrontendGuest, make_disk: MakeDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked at again in a moment, once, whatever else comes."""
    front = BlockFront(guest, make_disk(), persistent=True)
    front.read(0, 4096)
    settled(machine)
    (queue,) = front.device._queues
    busy = Busy(queue._direct, 5)
    monkeypatch.setattr(queue, "_direct", busy)
    front.queue.ring.put([rw(READ, 8, 0, [(front.refs[0], 0, 7)])])

    def events() -> None:
        for _ in range(3):
            queue._serve()

    machine.call(events)
    assert front.queue.answers(1) == {8: (READ, OKAY)}
    settled(machine)
    assert busy.looks <= -1
    monkeypatch.undo()
    assert front.read(0, 4096)


@pytest.mark.parametrize("persistent", [False, True])
def test_a_request_whose_event_neither_side_wanted_is_carried_out(
    machine: Machine,
    guest: FrontendGuest,
    make_disk: MakeDisk,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    persistent: bool,
) -> None:
    """On an emulated processor a frontend may not see yet that an event is wanted when its request is not seen yet."""
    front = BlockFront(guest, make_disk(), persistent=persistent)
    front.read(0, 4096)
    settled(machine)
    (queue,) = front.device._queues
    look, empty = queue._second_look.soon, list[int]()

    def found_empty(position: int) -> None:
        if not empty:
            front.queue.ring.put([rw(READ, 9, 8, [(front.refs[0], 0, 7)])])
        empty.append(position)
        look(position)

    monkeypatch.setattr(queue._second_look, "soon", found_empty)
    front.queue.ring.put([rw(READ, 8, 0, [(front.refs[0], 0, 7)])])
    machine.call(queue._serve)
    assert front.queue.answers(2) == {8: (READ, OKAY), 9: (READ, OKAY)}
    assert by_itself(front.device)[0] == 2 * persistent
    settled(machine)
    assert front.read(16, 512) == path.read_bytes()[16 * 512 : 17 * 512]


def test_a_ring_that_grows_too_long_is_python_s_to_refuse(
    machine: Machine, guest: FrontendGuest, make_disk: MakeDisk
) -> None:
    front = BlockFront(guest, make_disk(), persistent=True)
    front.read(0, 4096)
    settled(machine)
    front.read(0, 4096)
    front.queue.ring.set_index("req_prod", 1000)
    guest.send(front.queue.port)
    wait_for(lambda: front.device.fault, "a fault")
    assert "request index" in (front.device.fault or "")
    assert not any(guest.is_mapped(ref) for ref in front.refs)
