"""Shared rings: against a queue, and against a frontend that lies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paravirt.abi.io.ring import SringHeader
from paravirt.domain0.devices.ring import HEADER_SIZE, BackRing, RingPages, ring_entries
from paravirt.domain0.ring import RingError
from paravirt.errors import HypervisorBug

from .._pages import Page
from .rings import FrontRing

indices = st.integers(0, 0xFFFFFFFF) | st.sampled_from([0, 0xFFFFFFFF, 0xFFFFFFF0, 0x7FFFFFFF])
sizes = st.tuples(st.sampled_from([1, 2, 4, 8]), st.sampled_from([8, 12, 112]))


@pytest.mark.parametrize(
    ("pages", "size", "entries"), [(1, 112, 32), (2, 112, 64), (16, 112, 512), (1, 12, 256), (1, 8, 256), (1, 2016, 2)]
)
def test_how_many_entries_a_ring_has(pages: int, size: int, entries: int) -> None:
    """Those of blkif are well known: 32 for each page; netif has 256 both ways."""
    assert ring_entries(pages, size) == entries


@given(sizes, indices, st.data())
def test_requests_and_responses_come_out_as_they_went_in(
    size: tuple[int, int], start: int, data: st.DataObject
) -> None:
    """In order, over the overflow of the indices and the end of the pages; and nobody waits for an event in vain."""
    count, entry_size = size
    pages = [Page() for _ in range(count)]
    front = FrontRing(pages, entry_size, start)
    back = BackRing(pages, entry_size)
    assert back.entries == front.entries
    sent: list[bytes] = []
    taken: list[bytes] = []
    answered: list[bytes] = []
    received: list[bytes] = []
    back_is_awake = front_is_awake = False
    for step in range(data.draw(st.integers(0, 30))):
        if data.draw(st.booleans()) and front.room:
            number = data.draw(st.integers(1, front.room))
            requests = [bytes([step, i & 0xFF, i >> 8] * entry_size)[:entry_size] for i in range(number)]
            back_is_awake = front.put(requests) or back_is_awake
            sent += requests
        elif data.draw(st.booleans()):
            new = back.take(data.draw(st.integers(0, back.entries)))
            taken += new
            back_is_awake = back.ask_for_event()
        elif data.draw(st.booleans()):
            some = taken[len(answered) : len(answered) + data.draw(st.integers(0, 600))]
            back.respond_all([request[::-1] for request in some])
            answered += some
            front_is_awake = back.publish() or front_is_awake
        else:
            received += front.take()
            front_is_awake = False
        assert taken == sent[: len(taken)]
        assert back.waiting() == len(sent) - len(taken)
        assert back.unanswered == len(taken) - len(answered)
        # Whoever has something to do and was not told of it would sleep for ever.
        assert back_is_awake or len(taken) == len(sent)
        assert front_is_awake or front.index("rsp_prod") == front.rsp_cons
    back.publish()
    received += front.take()
    assert received == [request[::-1] for request in answered]


@given(sizes, st.lists(indices, min_size=1, max_size=8), st.lists(indices, max_size=8))
def test_a_frontend_that_lies_about_its_requests(
    size: tuple[int, int], producers: list[int], events: list[int]
) -> None:
    """Whatever it writes: never more requests than fit, never a byte beyond the pages, and an error or a list."""
    count, entry_size = size
    pages = [Page() for _ in range(count)]
    memory = RingPages(pages)
    back = BackRing(pages, entry_size)
    held = 0
    for producer, event in zip(producers, events + [0] * len(producers), strict=False):
        memory.write(SringHeader.req_prod.offset, producer.to_bytes(4, "little"))
        memory.write(SringHeader.rsp_event.offset, event.to_bytes(4, "little"))
        try:
            held += len(back.take(back.entries * 2))
        except RingError:
            continue
        assert back.unanswered == held <= back.entries
        if held:
            back.respond(bytes(8))
            back.publish()
            held -= 1


@given(sizes, indices, indices)
def test_a_backend_goes_on_where_another_stopped(size: tuple[int, int], rsp_prod: int, req_prod: int) -> None:
    count, entry_size = size
    pages = [Page() for _ in range(count)]
    front = FrontRing(pages, entry_size)
    front.set_index("rsp_prod", rsp_prod)
    front.set_index("req_prod", req_prod)
    left = (req_prod - rsp_prod) & 0xFFFFFFFF
    if left > front.entries:
        with pytest.raises(RingError):
            BackRing(pages, entry_size)
    else:
        back = BackRing(pages, entry_size)
        assert back.waiting() == left
        assert len(back.take(left + 1)) == left


def test_each_field_is_read_once_in_a_pass() -> None:
    pages = [Page(), Page()]
    front = FrontRing(pages, 112, 60)
    back = BackRing(pages, 112)
    front.put([bytes([i]) * 112 for i in range(10)])
    pages[0].log.clear()
    pages[1].log.clear()
    assert [request[0] for request in back.take(64)] == list(range(10))
    header = [entry for entry in pages[0].log if entry[1] < HEADER_SIZE]
    assert header == [("read", SringHeader.req_prod.offset, 4)]
    bytes_read = sum(length for page in pages for what, offset, length in page.log if what == "read")
    assert bytes_read == 4 + 10 * 112


def test_our_own_indices_are_not_read_from_the_page() -> None:
    page = Page()
    front = FrontRing([page], 8)
    back = BackRing([page], 8)
    front.put([b"question"])
    front.set_index("rsp_prod", 77)
    assert back.take(1) == [b"question"]
    back.respond(b"answered")
    assert back.publish()
    assert front.index("rsp_prod") == 1
    assert front.take() == [b"answered"]


def test_a_response_without_a_request_is_our_mistake() -> None:
    back = BackRing([Page()], 8)
    with pytest.raises(HypervisorBug):
        back.respond(b"")
