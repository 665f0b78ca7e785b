"""Byte rings: against a queue, and against a guest that lies."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from paravirt.domain0.ring import (
    CONSOLE_IN,
    CONSOLE_OUT,
    STORE_REPLIES,
    STORE_REQUESTS,
    ByteRing,
    RingError,
    RingLayout,
)

from ._pages import GuestEnd, Page

LAYOUTS = {"console in": CONSOLE_IN, "console out": CONSOLE_OUT, "requests": STORE_REQUESTS, "replies": STORE_REPLIES}
layouts = st.sampled_from(list(LAYOUTS.values()))
indices = st.integers(0, 0xFFFFFFFF) | st.sampled_from([0, 1, 1023, 1024, 2048, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFC00])


@pytest.mark.parametrize(
    ("name", "buffer", "size", "consumer", "producer"),
    [
        ("console in", 0, 1024, 3072, 3076),
        ("console out", 1024, 2048, 3080, 3084),
        ("requests", 0, 1024, 2048, 2052),
        ("replies", 1024, 1024, 2056, 2060),
    ],
)
def test_where_the_rings_are(name: str, buffer: int, size: int, consumer: int, producer: int) -> None:
    """Offsets from the structures of io/console.h and io/xs_wire.h."""
    assert LAYOUTS[name] == RingLayout(buffer, size, consumer, producer)


@given(
    layouts,
    indices,
    st.lists(st.tuples(st.booleans(), st.integers(0, 2500)), max_size=20),
)
def test_bytes_come_out_as_they_went_in(layout: RingLayout, start: int, steps: list[tuple[bool, int]]) -> None:
    """Both ways, with any index to begin with, over its overflow and the buffer's end."""
    for ours_puts in (True, False):
        page = Page()
        page.set_index(layout.consumer, start)
        page.set_index(layout.producer, start)
        ring, guest = ByteRing(page, layout), GuestEnd(page, layout)
        queue = b""
        said = 0
        for putting, count in steps:
            if putting:
                data = bytes((said + i) % 251 for i in range(count))
                done = ring.put(data) if ours_puts else guest.put(data)
                assert done == min(count, layout.size - len(queue))
                queue += data[:done]
                said += done
            else:
                taken = guest.take(count) if ours_puts else ring.take(count)
                assert taken == queue[:count]
                queue = queue[count:]
        assert guest.used == len(queue)


@given(layouts, indices, indices, st.integers(0, 3000))
@example(CONSOLE_OUT, 0, 2048, 3000)
@example(CONSOLE_OUT, 0, 2049, 3000)
@example(STORE_REQUESTS, 1, 0, 10)
def test_indices_that_lie_are_refused_and_nothing_is_touched(
    layout: RingLayout, consumer: int, producer: int, count: int
) -> None:
    for use in ("take", "put"):
        page = Page()
        page.set_index(layout.consumer, consumer)
        page.set_index(layout.producer, producer)
        before = bytes(page.bytes)
        ring = ByteRing(page, layout)
        used = (producer - consumer) % 2**32
        if used > layout.size:
            with pytest.raises(RingError, match="apart"):
                ring.take(count) if use == "take" else ring.put(b"x" * count)
            assert page.bytes == before
        elif use == "take":
            assert len(ring.take(count)) == min(used, count)
        else:
            assert ring.put(b"x" * count) == min(layout.size - used, count)
        outside = bytearray(page.bytes)
        for start, length in ((layout.buffer, layout.size), (layout.consumer, 4), (layout.producer, 4)):
            outside[start : start + length] = before[start : start + length]
        assert outside == before


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_an_index_is_read_once_and_published_last(layout: RingLayout) -> None:
    page = Page()
    # Ten bytes that go over the buffer's end.
    page.set_index(layout.consumer, layout.size - 5)
    page.set_index(layout.producer, layout.size + 5)
    assert len(ByteRing(page, layout).take()) == 10
    reads = [offset for what, offset, _ in page.log if what == "read"]
    assert sorted(reads[:2]) == sorted((layout.consumer, layout.producer))
    assert reads[2:] == [layout.buffer + layout.size - 5, layout.buffer]
    assert page.log[-1] == ("write", layout.consumer, 4)
    page.log.clear()
    page.set_index(layout.producer, 2 * layout.size - 5)
    page.set_index(layout.consumer, 2 * layout.size - 5)
    ByteRing(page, layout).put(b"0123456789")
    assert [offset for what, offset, _ in page.log if what == "read"] == [layout.consumer, layout.producer]
    assert [entry for entry in page.log if entry[0] == "write"] == [
        ("write", layout.buffer + layout.size - 5, 5),
        ("write", layout.buffer, 5),
        ("write", layout.producer, 4),
    ]


def test_fill_asks_only_for_what_fits() -> None:
    page = Page()
    ring = ByteRing(page, STORE_REPLIES)
    asked: list[int] = []

    def source(room: int) -> bytes:
        asked.append(room)
        return b"x" * 600

    assert ring.fill(source) == 600
    assert ring.fill(lambda room: b"y" * room) == 424
    assert ring.fill(source) == 0
    assert asked == [1024]
    assert ring.fill(lambda _: b"") == 0
