"""One TCP connection with a guest, from the router's side, relayed to a byte stream elsewhere. Free of I/O.

The guest's end is TCP (RFC 9293, with window scaling, RFC 7323); the other end is a stream that takes and gives
bytes. Between the two nothing is reordered, and little is lost: lost segments are sent again from the first one on,
and what comes out of order is left to the guest to repeat.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

from paravirt.domain0.net.packet import TCP_ACK, TCP_FIN, TCP_PSH, TCP_RST, TCP_SYN

MASK: Final = 0xFFFFFFFF
RECEIVE_LIMIT: Final = 1 << 19
"""Bytes from the guest that may wait for the stream to take them."""
SEND_LIMIT: Final = 1 << 18
"""Bytes for the guest that may be under way."""
LARGEST_SEGMENT: Final = 61440
"""Bytes given to the interface at once, to be cut by whoever needs it smaller."""
DEFAULT_MSS: Final = 536
OWN_MSS: Final = 1460
_SCALE: Final = 7
_MOST_SCALE: Final = 14
_OPTION_END, _OPTION_NOP, _OPTION_MSS, _OPTION_SCALE = 0, 1, 2, 3
_FIRST_TIMEOUT: Final = 0.3
_LAST_TIMEOUT: Final = 20.0
_MOST_TIMEOUTS: Final = 10
_TIMEOUTS_WHILE_CLOSED: Final = 5
"""So many count at most while the guest answers that it has no room: it is asked again (RFC 9293, 3.8.6.1)."""
_REPEATED_ACKS: Final = 3


def after(a: int, b: int) -> bool:
    """Whether sequence number ``a`` is behind ``b``."""
    return 0 < (a - b) & MASK < 0x80000000


@dataclass(frozen=True)
class Segment:
    """A segment of the guest's."""

    sequence: int
    acknowledged: int
    flags: int
    window: int
    options: bytes
    payload: bytes


class Side(Protocol):
    """What a connection is between."""

    def emit(self, flags: int, sequence: int, acknowledged: int, window: int, options: bytes, payload: bytes) -> None:
        """Send the guest a segment."""

    def deliver(self, data: bytes) -> int:
        """Give the stream bytes: how many it took."""

    def finish(self) -> None:
        """The guest sends nothing any more, and the stream has all of it."""

    def gone(self, is_broken: bool) -> None:
        """The connection has ended; ``is_broken``: by a reset or for want of an answer."""


class State(Enum):
    """Where a connection is in its life."""

    WAITING = "the stream is being opened"
    ANSWERED = "the guest's SYN has been answered"
    ASKED = "a SYN has been sent to the guest"
    OPEN = "both ends talk, or one of them still does"
    ENDED = "there is no connection any more"


class Connection:
    """A connection.

    Parameters:
        sequence: the first sequence number of ours.

    Its methods are told the time, ``now``: seconds of a monotonic clock.
    """

    def __init__(self, side: Side, sequence: int) -> None:
        self.state = State.WAITING
        self._side = side
        self._una = self._next = sequence & MASK
        self._to_guest = bytearray()
        self._to_stream = bytearray()
        self._received = 0
        self._window = 0
        self._window_scale = 0
        self._own_scale = 0
        self._advertised = 0
        self.mss = DEFAULT_MSS
        self._is_ending = self._end_sent = False
        self._guest_ended = self._stream_told = False
        self._ack_wanted = False
        self._repeated = 0
        self._timeouts = 0
        self._deadline: float | None = None

    # --- how it begins ----------------------------------------------------------------------------------------

    def asked_by_guest(self, segment: Segment) -> None:
        """The guest's SYN: it is answered when the stream is open."""
        self._received = (segment.sequence + 1) & MASK
        self._window = segment.window
        self._read_options(segment.options)

    def stream_opened(self, now: float) -> None:
        """The stream that the guest asked for is there."""
        if self.state is State.WAITING:
            self.state = State.ANSWERED
            self._send_syn(now)

    def ask_guest(self, now: float) -> None:
        """Open a connection to the guest; the stream is there already."""
        self._own_scale = _SCALE
        self.state = State.ASKED
        self._send_syn(now)

    # --- what happens -----------------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """How many bytes the guest may be sent now."""
        return 0 if self._is_ending else max(0, SEND_LIMIT - len(self._to_guest))

    def send(self, data: bytes, now: float) -> None:
        """Bytes from the stream."""
        self._to_guest += data
        self._transmit(now)

    def stream_ended(self, now: float) -> None:
        """The stream gives no more bytes."""
        self._is_ending = True
        self._transmit(now)
        self._look_for_end()

    def stream_takes(self) -> None:
        """The stream takes bytes again."""
        self._push()
        if self.state is State.OPEN and self._own_window() - self._advertised >= RECEIVE_LIMIT // 4:
            self._ack()
        self._look_for_end()

    @property
    def wants_stream(self) -> bool:
        """Bytes wait for the stream to take them."""
        return bool(self._to_stream)

    def abort(self) -> None:
        """The stream broke: the guest is sent a reset."""
        if self.state is not State.ENDED:
            flags = TCP_RST | TCP_ACK
            self._side.emit(flags, self._next, self._received, 0, b"", b"")
            self._end(True)

    def receive(self, segment: Segment, now: float) -> None:
        """A segment of the guest's, its first SYN excepted."""
        if self.state in (State.ENDED, State.WAITING):
            if segment.flags & TCP_RST:
                self._end(True)
            return
        if self.state is State.ASKED and not self._accepted(segment):
            return
        if segment.flags & TCP_RST:
            if segment.sequence == self._received or self.state is State.ASKED:
                self._end(True)
            return
        if segment.flags & TCP_SYN and self.state is not State.ASKED:
            self._ack()
            return
        if segment.flags & TCP_ACK:
            if not self._acknowledge(segment, now):
                return
        if self.state is State.OPEN:
            self._take(segment)
            self._transmit(now)
            self._look_for_end()

    def flush(self) -> None:
        """Acknowledge what has come."""
        if self._ack_wanted and self.state is State.OPEN:
            self._ack()

    def tick(self, now: float) -> None:
        """Time has passed: send again what is overdue."""
        if self._deadline is None or now < self._deadline:
            return
        self._timeouts += 1
        if self._timeouts > _MOST_TIMEOUTS:
            self.abort()
            return
        if self.state in (State.ANSWERED, State.ASKED):
            self._next = self._una
            self._send_syn(now)
            return
        self._resend(now)

    # --- towards the guest ------------------------------------------------------------------------------------

    def _send_syn(self, now: float) -> None:
        options = struct.pack("!BBH", _OPTION_MSS, 4, OWN_MSS)
        if self._own_scale:
            options += bytes([_OPTION_NOP, _OPTION_SCALE, 3, self._own_scale])
        flags = TCP_SYN | (TCP_ACK if self.state is State.ANSWERED else 0)
        self._side.emit(flags, self._una, self._received, min(self._own_window(), 0xFFFF), options, b"")
        self._next = (self._una + 1) & MASK
        self._arm(now)

    def _transmit(self, now: float) -> None:
        """Send what the guest has room for."""
        if self.state is not State.OPEN:
            return
        while True:
            under_way = (self._next - self._una) & MASK
            size = min(len(self._to_guest) - under_way, self._window - under_way, LARGEST_SEGMENT)
            if self._end_sent or size <= 0:
                break
            is_last = under_way + size == len(self._to_guest)
            data = bytes(memoryview(self._to_guest)[under_way : under_way + size])
            self._segment(TCP_PSH if is_last else 0, self._next, data)
            self._next = (self._next + size) & MASK
        if self._is_ending and not self._end_sent and (self._next - self._una) & MASK == len(self._to_guest):
            self._segment(TCP_FIN, self._next, b"")
            self._next = (self._next + 1) & MASK
            self._end_sent = True
        if self._deadline is None and (self._to_guest or self._end_sent):
            self._arm(now)

    def _resend(self, now: float) -> None:
        """Send the first segment again that was not acknowledged, whatever the guest's window was."""
        if self._to_guest:
            data = bytes(self._to_guest[: self.mss])
            self._segment(TCP_PSH, self._una, data)
            # It counts as sent, when it is a probe of a closed window.
            if after((self._una + len(data)) & MASK, self._next):
                self._next = (self._una + len(data)) & MASK
        elif self._end_sent and self._una != self._next:
            self._segment(TCP_FIN, self._una, b"")
        self._arm(now)

    def _segment(self, flags: int, sequence: int, data: bytes) -> None:
        self._ack_wanted = False
        window = min(self._own_window() >> self._own_scale, 0xFFFF)
        self._advertised = window << self._own_scale
        self._side.emit(flags | TCP_ACK, sequence, self._received, window, b"", data)

    def _ack(self) -> None:
        self._segment(0, self._next, b"")

    def _own_window(self) -> int:
        return max(0, RECEIVE_LIMIT - len(self._to_stream))

    def _arm(self, now: float) -> None:
        self._deadline = now + min(_LAST_TIMEOUT, _FIRST_TIMEOUT * (1 << self._timeouts))

    # --- from the guest ---------------------------------------------------------------------------------------

    def _accepted(self, segment: Segment) -> bool:
        """Whether a segment answers our SYN."""
        if segment.flags & TCP_ACK and segment.acknowledged != self._next:
            return False
        if segment.flags & TCP_RST:
            return bool(segment.flags & TCP_ACK)
        if segment.flags & (TCP_SYN | TCP_ACK) != TCP_SYN | TCP_ACK:
            return False
        self._received = (segment.sequence + 1) & MASK
        self._read_options(segment.options)
        return True

    def _acknowledge(self, segment: Segment, now: float) -> bool:
        """Take an acknowledgement; false: it is of what was never sent."""
        acknowledged = (segment.acknowledged - self._una) & MASK
        if acknowledged > (self._next - self._una) & MASK:
            if not after(self._una, segment.acknowledged):
                self._ack()
                return False
            acknowledged = 0
        old_window = self._window
        # A SYN's window is not scaled.
        self._window = segment.window << (0 if segment.flags & TCP_SYN else self._window_scale)
        if acknowledged:
            self._forget(acknowledged)
            self._timeouts = self._repeated = 0
            self._deadline = None
            if self._una != self._next:
                self._arm(now)
        elif not self._window:
            self._timeouts = min(self._timeouts, _TIMEOUTS_WHILE_CLOSED)
        elif not segment.payload and self._una != self._next and self._window == old_window:
            self._repeated += 1
            if self._repeated == _REPEATED_ACKS:
                self._resend(now)
        return True

    def _forget(self, acknowledged: int) -> None:
        """So many sequence numbers have arrived."""
        self._una = (self._una + acknowledged) & MASK
        if self.state in (State.ANSWERED, State.ASKED):
            self._ack_wanted = self._ack_wanted or self.state is State.ASKED
            self.state = State.OPEN
            acknowledged -= 1
        del self._to_guest[: min(acknowledged, len(self._to_guest))]

    def _take(self, segment: Segment) -> None:
        """Take the payload, as far as it continues what is there."""
        start = (segment.sequence + (1 if segment.flags & TCP_SYN else 0)) & MASK
        known = (self._received - start) & MASK
        if segment.payload or segment.flags & TCP_FIN:
            self._ack_wanted = True  # also for a repetition, or what is beyond a gap: say where we are
        if known > len(segment.payload) or self._guest_ended:
            return
        data = segment.payload[known : known + self._own_window()]
        is_whole = known + len(data) == len(segment.payload)
        if data:
            self._received = (self._received + len(data)) & MASK
            self._to_stream += data
            self._push()
        if segment.flags & TCP_FIN and is_whole:
            self._received = (self._received + 1) & MASK
            self._guest_ended = True

    def _push(self) -> None:
        if self._to_stream:
            taken = self._side.deliver(bytes(self._to_stream))
            del self._to_stream[:taken]

    def _look_for_end(self) -> None:
        if self.state is not State.OPEN:
            return
        if self._guest_ended and not self._to_stream and not self._stream_told:
            self._stream_told = True
            self._side.finish()
        if self._guest_ended and self._stream_told and self._end_sent and self._una == self._next:
            self.flush()
            self._end(False)

    def _end(self, is_broken: bool) -> None:
        if self.state is not State.ENDED:
            self.state = State.ENDED
            self._deadline = None
            self._side.gone(is_broken)

    def _read_options(self, options: bytes) -> None:
        at = 0
        while at < len(options) and options[at] != _OPTION_END:
            if options[at] == _OPTION_NOP:
                at += 1
                continue
            if at + 2 > len(options) or not 2 <= options[at + 1] <= len(options) - at:
                break
            kind, value = options[at], options[at + 2 : at + options[at + 1]]
            if kind == _OPTION_MSS and len(value) == 2:
                self.mss = min(OWN_MSS, max(DEFAULT_MSS // 8, int.from_bytes(value, "big")))
            elif kind == _OPTION_SCALE and len(value) == 1:
                self._window_scale = min(value[0], _MOST_SCALE)
                self._own_scale = _SCALE
            at += options[at + 1]
