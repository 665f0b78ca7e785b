"""What the verbs share: the daemon at the other end, options, and the ways to fail."""

from __future__ import annotations

import getopt
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from paravirt.domain0.daemon.launch import connect_or_start, connect_to
from paravirt.domain0.daemon.paths import places
from paravirt.domain0.daemon.protocol import VERSION, Channel, ConnectionLost, Refusal
from paravirt.errors import UserError

FAILURE: Final = 1
USAGE: Final = 2

Row = dict[str, Any]


class Exit(Exception):
    """Ends the command with a status; what there was to say has been said."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Daemon:
    """A connection to the daemon, which is started when there is none."""

    def __init__(self, channel: Channel | None = None) -> None:
        self.channel = channel or connect_or_start(places())
        for notice in self.call("hello")["notices"]:
            say(f"xl: {notice}")

    @classmethod
    def running(cls) -> Daemon | None:
        """A connection to the daemon if there is one."""
        channel = connect_to(places())
        return None if channel is None else cls(channel)

    def call(self, operation: str, **arguments: Any) -> Any:
        """Ask for an operation and return its result.

        Raises:
            Refusal: the daemon does not do it.
            UserError: the daemon has gone.
        """
        return self.call_with_events(operation, lambda event: None, **arguments)

    def call_with_events(self, operation: str, on_event: Callable[[Row], None], **arguments: Any) -> Any:
        """The same; ``on_event`` is called with what happens until the result is there."""
        if Logging.verbose:
            say(f"xl: debug: {operation} {arguments or ''}".rstrip())
        try:
            self.channel.send({"version": VERSION, "operation": operation, "arguments": arguments})
            while (message := self.channel.receive()) is not None:
                if "event" in message:
                    on_event(message["event"])
                elif "error" in message:
                    raise Refusal(message.get("code", ""), message["error"])
                else:
                    return message.get("result")
        except ConnectionLost as error:
            raise UserError(f"The connection to the daemon is lost ({error}).") from error
        raise UserError("The daemon has ended, and the domains with it.")

    def domains(self, qualifier: str = "") -> list[Row]:
        """Rows of all domains, or of one."""
        return list(self.call("list", domain=qualifier))

    def guests(self) -> Iterator[Row]:
        """Rows of all domains but Domain 0."""
        return (row for row in self.domains() if row["domid"] != 0)


class Logging:
    """How messages look (xl's global options).

    Attributes:
        verbose: what the daemon is asked for is said, too (-v).
        stamped: each has the time and the number of this process in front (-T).
    """

    verbose = False
    stamped = False


def say(text: str) -> None:
    """A line on standard error."""
    stamp = f"{time.strftime('%Y-%m-%d %H:%M:%S %Z')} [{os.getpid()}] " if Logging.stamped else ""
    sys.stderr.write(f"{stamp}{text}\n")


class Options:
    """A verb's options and arguments, taken apart as getopt_long does.

    Attributes:
        arguments: what is not an option.
    """

    def __init__(self, given: list[tuple[str, str]], arguments: list[str]) -> None:
        self._given = given
        self.arguments = arguments

    def __contains__(self, letter: str) -> bool:
        return any(name == f"-{letter}" for name, _ in self._given)

    def add(self, letter: str) -> None:
        """As if the option had been given."""
        self._given.append((f"-{letter}", ""))

    def get(self, letter: str) -> str | None:
        """The value of the last option of this letter."""
        values = [value for name, value in self._given if name == f"-{letter}"]
        return values[-1] if values else None


def parse_options(words: Sequence[str], short: str, long: dict[str, str]) -> Options:
    """Take words apart. ``long`` maps long names (with = if they take a value) to letters.

    Raises:
        getopt.GetoptError: there is no such option.
    """
    given, arguments = getopt.gnu_getopt(list(words), "h" + short, ["help", *long])
    letters = {f"--{name.rstrip('=')}": f"-{letter}" for name, letter in {**long, "help": "h"}.items()}
    return Options([(letters.get(name, name), value) for name, value in given], arguments)


def parse_number(text: str) -> int:
    """A decimal number.

    Raises:
        UserError: it is not one.
    """
    try:
        return int(text, 10)
    except ValueError as error:
        raise UserError(f"{text!r} is not a number.") from error


_UNITS: Final = {"b": 0, "k": 10, "": 20, "m": 20, "g": 30, "t": 40}


def parse_memory(text: str) -> int:
    """KiB from a text like 64, 64m or 65536k; without a unit, MiB are meant.

    Raises:
        UserError: it is not such a text.
    """
    digits = text.rstrip("bBkKmMgGtT")
    unit = text[len(digits) :].lower()
    if not (digits.isascii() and digits.isdigit()) or unit not in _UNITS:
        raise UserError(f"{text!r} is not an amount of memory (MiB, or with a unit: b, k, m, g, t).")
    return (int(digits) << _UNITS[unit]) >> 10
