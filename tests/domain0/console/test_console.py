"""The console: what is kept, who is told, and expect and send."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paravirt.domain0.console import Console, ConsoleClosed, ConsoleTimeout
from paravirt.domain0.ring import CONSOLE_IN, CONSOLE_OUT

from ...patience import PATIENCE
from .._pages import GuestEnd, Page


class Guest:
    """A guest with a console; ``run`` is Domain 0's thread."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.page = Page()
        self.says = GuestEnd(self.page, CONSOLE_OUT)
        self.hears = GuestEnd(self.page, CONSOLE_IN)
        self.notified = 0
        self.due = 0
        console.attach(self.page, self._notify)
        console.wake = self._wake

    def _notify(self) -> None:
        self.notified += 1

    def _wake(self) -> None:
        self.due += 1

    def run(self) -> None:
        self.console.on_event()
        while self.due:
            self.due -= 1
            self.console.on_event()


@pytest.fixture
def guest() -> Guest:
    return Guest(Console())


def in_thread(function: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Run a function in a thread; what it returned or raised is in the list when the thread has ended."""
    results: list[object] = []

    def run() -> None:
        try:
            results.append(function())
        except Exception as error:  # for the test to look at
            results.append(error)
            logging.getLogger(__name__).exception("in a thread")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, results


# --- rings -----------------------------------------------------------------------------------------------------


def test_output_comes_through_the_ring_and_is_acknowledged(guest: Guest) -> None:
    guest.says.put(b"Linux version")
    guest.run()
    assert guest.console.output == b"Linux version"
    assert guest.says.used == 0
    assert guest.notified == 1
    guest.run()
    assert guest.notified == 1


def test_both_sources_are_one_output(guest: Guest) -> None:
    guest.console.emit(b"(early) ")
    guest.says.put(b"hvc0")
    guest.run()
    guest.console.emit(b" (emergency)")
    guest.console.emit(b"")
    assert guest.console.output == b"(early) hvc0 (emergency)"


def test_a_console_works_before_it_has_a_ring() -> None:
    console = Console()
    console.emit(b"hello")
    console.send("typed early\n")
    console.on_event()
    assert console.unread == len("typed early\n")
    guest = Guest(console)
    guest.run()
    assert guest.hears.take() == b"typed early\n"
    assert console.output == b"hello"


def test_what_is_typed_waits_for_room(guest: Guest) -> None:
    text = bytes(i % 251 for i in range(5000))
    guest.console.send(text)
    heard = b""
    rounds = 0
    while len(heard) < len(text):
        guest.run()
        assert guest.hears.used <= 1024
        heard += guest.hears.take()
        rounds += 1
    assert heard == text
    assert rounds == 5
    assert guest.console.unread == 0


def test_send_takes_text_and_wakes_domain_0(guest: Guest) -> None:
    guest.console.send("Grüße\n")
    assert guest.due == 1
    guest.run()
    assert guest.hears.take() == "Grüße\n".encode()


def test_indices_that_lie_end_the_rings_service_and_keep_the_output(guest: Guest) -> None:
    guest.says.put(b"so far")
    guest.run()
    guest.page.set_index(CONSOLE_OUT.producer, guest.page.index(CONSOLE_OUT.consumer) + 2049)
    guest.run()
    assert guest.console.fault is not None
    assert "2049 apart" in guest.console.fault
    guest.page.set_index(CONSOLE_OUT.producer, guest.page.index(CONSOLE_OUT.consumer))
    guest.says.put(b" and later")
    guest.run()
    guest.console.emit(b", but the hypercall works")
    assert guest.console.output == b"so far, but the hypercall works"


def test_a_guest_that_never_stops_is_served_in_turns() -> None:
    class Flood(Page):
        def write(self, offset: int, data: bytes) -> None:
            super().write(offset, data)
            if offset == CONSOLE_OUT.consumer:
                GuestEnd(self, CONSOLE_OUT).put(b"x" * 2048)

    console = Console()
    flood = Flood()
    woken: list[int] = []
    console.attach(flood, lambda: None)
    console.wake = lambda: woken.append(1)
    GuestEnd(flood, CONSOLE_OUT).put(b"x" * 2048)
    console.on_event()
    assert len(console.output) == 32 * 2048
    assert woken == [1]


# --- what is kept ----------------------------------------------------------------------------------------------


def test_the_oldest_output_goes_and_is_counted() -> None:
    console = Console(limit=10)
    console.emit(b"0123456789")
    assert (console.output, console.dropped) == (b"0123456789", 0)
    console.emit(b"abc")
    assert (console.output, console.dropped) == (b"3456789abc", 3)
    console.emit(b"x" * 25)
    assert (console.output, console.dropped) == (b"x" * 10, 28)


def test_without_a_limit_everything_is_kept() -> None:
    console = Console(limit=None)
    for _ in range(100):
        console.emit(b"x" * 1000)
    assert (len(console.output), console.dropped) == (100_000, 0)


def test_the_tail() -> None:
    console = Console()
    console.emit("abc é".encode() + b"\xff")
    assert console.tail(1) == "\N{REPLACEMENT CHARACTER}"
    assert console.tail(1000) == "abc é\N{REPLACEMENT CHARACTER}"
    assert console.tail(0) == ""


def test_the_end_keeps_everything(guest: Guest) -> None:
    guest.says.put(b"reboot: Power down\n")
    guest.run()
    guest.console.close()
    guest.console.close()
    assert guest.console.closed
    assert guest.console.output == b"reboot: Power down\n"
    before = guest.notified, guest.due
    guest.console.send("too late")
    guest.says.put(b"from beyond")
    guest.run()
    assert (guest.notified, guest.due) == before
    assert guest.console.output == b"reboot: Power down\n"


# --- listeners -------------------------------------------------------------------------------------------------


def test_a_listener_hears_everything_once(guest: Guest) -> None:
    heard: list[bytes] = []
    later: list[bytes] = []
    ended: list[int] = []
    guest.console.emit(b"one ")
    guest.console.listen(heard.append, closed=lambda: ended.append(len(heard)))
    guest.console.listen(later.append, backlog=False)
    guest.says.put(b"two ")
    guest.run()
    guest.console.emit(b"three")
    assert heard == [b"one ", b"two ", b"three"]
    assert later == [b"two ", b"three"]
    guest.console.unlisten(later.append)
    guest.console.emit(b"!")
    assert later == [b"two ", b"three"]
    assert ended == []
    guest.console.close()
    assert ended == [4]


def test_a_listener_that_comes_after_the_end_hears_all_the_same() -> None:
    console = Console()
    console.emit(b"last words")
    console.close()
    heard: list[bytes | None] = []
    console.listen(heard.append, closed=lambda: heard.append(None))
    assert heard == [b"last words", None]


def test_a_listener_may_talk_to_the_console(guest: Guest) -> None:
    def answer(data: bytes) -> None:
        if data == b"login: ":
            guest.console.send("root\n")
            guest.console.emit(b"(sent)")

    guest.console.listen(answer)
    guest.says.put(b"login: ")
    guest.run()
    assert guest.hears.take() == b"root\n"
    assert guest.console.output == b"login: (sent)"


def test_a_listener_that_fails_is_left_out_and_the_others_are_not(
    guest: Guest, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[bytes] = []

    def fail(data: bytes) -> None:
        calls.append(data)
        raise ValueError("no more room")

    heard: list[bytes] = []
    guest.console.listen(fail)
    guest.console.listen(heard.append)
    guest.console.emit(b"one")
    guest.console.emit(b"two")
    assert calls == [b"one"]
    assert heard == [b"one", b"two"]
    assert "no more room" in caplog.text


def test_a_listener_hears_in_order_whoever_speaks() -> None:
    """Several threads speak and one listens in the middle of it: what it hears is the output."""
    console = Console()
    start = threading.Barrier(5)

    def speak(name: int) -> None:
        start.wait(PATIENCE)
        for i in range(300):
            console.emit(b"%d:%d " % (name, i))

    threads = [in_thread(lambda name=name: speak(name))[0] for name in range(4)]  # type: ignore[misc]
    heard: list[bytes] = []
    start.wait(PATIENCE)
    console.listen(heard.append)
    for thread in threads:
        thread.join(PATIENCE)
    assert b"".join(heard) == console.output
    assert len(console.output.split()) == 1200


# --- expect ----------------------------------------------------------------------------------------------------


def test_expect_finds_what_is_there_and_goes_on_behind_it() -> None:
    console = Console()
    console.emit(b"# one\n# two\n")
    assert console.expect("# ", timeout=0) == "# "
    assert console.expect("# ", timeout=0) == "one\n# "
    with pytest.raises(ConsoleTimeout):
        console.expect("# ", timeout=0)
    assert console.expect(b"tw", timeout=0) == "tw"
    assert console.expect("o\n", timeout=0) == "o\n"


def test_expect_waits_for_what_comes_in_pieces(guest: Guest) -> None:
    guest.says.put(b"~ ")
    guest.run()
    thread, results = in_thread(lambda: guest.console.expect("login:", timeout=PATIENCE))
    for piece in (b"Debian log", b"in", b": "):
        assert not results
        guest.says.put(piece)
        guest.run()
    thread.join(PATIENCE)
    assert results == ["~ Debian login:"]
    assert guest.console.expect(" ", timeout=0) == " "


def test_expect_shows_the_last_words_when_nothing_comes() -> None:
    console = Console()
    console.emit(b"x" * 5000 + b"Kernel panic\n")
    with pytest.raises(ConsoleTimeout, match=r"'login:' did not come within 0 s.*\n(?s:.)*x{900,1000}Kernel panic"):
        console.expect("login:", timeout=0)


def test_the_domains_end_wakes_who_waits() -> None:
    console = Console()
    console.emit(b"almost")
    thread, results = in_thread(lambda: console.expect("never"))
    console.close()
    thread.join(PATIENCE)
    assert len(results) == 1
    assert isinstance(results[0], ConsoleClosed)
    assert "almost" in str(results[0])


def test_expect_after_the_end_finds_what_is_there() -> None:
    console = Console()
    console.emit(b"Power down\n")
    console.close()
    assert console.expect("down", timeout=0) == "Power down"
    with pytest.raises(ConsoleClosed, match="before it said 'up'"):
        console.expect("up")


def test_expect_goes_on_although_the_oldest_output_goes() -> None:
    console = Console(limit=10)
    console.emit(b"0123456789")
    assert console.expect("89", timeout=0) == "0123456789"
    console.emit(b"abcdefghijklmnop#")
    assert console.expect("#", timeout=0) == "hijklmnop#"
    with pytest.raises(ConsoleTimeout):
        console.expect("p", timeout=0)


def test_two_who_wait_for_the_same_get_one_each() -> None:
    console = Console()
    threads = [in_thread(lambda: console.expect("\n", timeout=PATIENCE)) for _ in range(2)]
    console.emit(b"one\ntwo\n")
    for thread, _ in threads:
        thread.join(PATIENCE)
    assert sorted(results[0] for _, results in threads if isinstance(results[0], str)) == ["one\n", "two\n"]


chunks = st.lists(st.binary(max_size=6).map(lambda data: bytes(97 + byte % 3 for byte in data)), max_size=30)


@given(chunks, st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=5), st.integers(20, 200))
def test_expectations_are_met_as_in_the_whole_text(pieces: list[bytes], wanted: list[str], limit: int) -> None:
    """However the output is cut, each expectation finds the first place after the previous one."""
    console = Console(limit=limit)
    text = b"".join(pieces)
    thread_results: list[str | None] = []

    def expect_all() -> None:
        for one in wanted:
            thread_results.append(console.expect(one))

    # All at once is the same as piece by piece, as long as nothing is dropped.
    if len(text) > limit:
        text = text[:limit]
    console.emit(text[: len(text) // 2])
    thread, results = in_thread(expect_all)
    for i in range(len(text) // 2, len(text), 3):
        console.emit(text[i : i + 3])
    console.close()
    thread.join(PATIENCE)
    position = 0
    expected = []
    for one in wanted:
        at = text.find(one.encode(), position)
        if at < 0:
            break
        expected.append(text[position : at + len(one)].decode())
        position = at + len(one)
    assert thread_results == expected
    assert (results == [None]) == (len(expected) == len(wanted))
