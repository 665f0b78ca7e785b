"""Requests as they come in: their arguments, checked, and the operations that there are."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from paravirt.domain0.daemon.protocol import INVALID, Channel, Refusal

if TYPE_CHECKING:
    from paravirt.domain0.daemon.domains import Domains, ManagedDomain
    from paravirt.domain0.toolstack import Machine

_MISSING: Final = object()


@dataclass(frozen=True)
class Daemon:
    """What operations work on.

    Attributes:
        stop: ends the daemon in an orderly way, soon.
        facts: what a start found out: memory in MiB, when, ...
        notices: what the first client is to be told.
    """

    machine: Machine
    domains: Domains
    stop: Callable[[], None]
    facts: dict[str, Any]
    notices: list[str]


class Request:
    """One request. Arguments are taken by name and kind; what is wrong is refused.

    Attributes:
        channel: where events of an operation that takes its time are sent.
        afterwards: called when the client has the result.
    """

    def __init__(self, daemon: Daemon, arguments: dict[str, Any], channel: Channel) -> None:
        self.daemon = daemon
        self.channel = channel
        self.afterwards: Callable[[], None] = lambda: None
        self._arguments = arguments

    @property
    def domains(self) -> Domains:
        return self.daemon.domains

    @property
    def machine(self) -> Machine:
        return self.daemon.machine

    def domain(self) -> ManagedDomain:
        """The domain that the argument ``domain`` names."""
        return self.domains.find(self.string("domain"))

    def string(self, name: str, default: Any = _MISSING) -> str:
        """A text."""
        return str(self._get(name, str, default))

    def integer(self, name: str, default: Any = _MISSING) -> int:
        """A number."""
        return int(self._get(name, int, default))

    def flag(self, name: str) -> bool:
        """True or false; false if it is not there."""
        return bool(self._get(name, bool, False))

    def object(self, name: str) -> dict[str, Any]:
        """An object."""
        return dict(self._get(name, dict, _MISSING))

    def strings(self, name: str) -> list[str]:
        """A list of texts; empty if it is not there."""
        found = self._get(name, list, [])
        if not all(isinstance(one, str) for one in found):
            raise Refusal(INVALID, f"The argument {name!r} is not a list of texts.")
        return list(found)

    def integers(self, name: str) -> list[int]:
        """A list of numbers; empty if it is not there."""
        found = self._get(name, list, [])
        if not all(isinstance(one, int) and not isinstance(one, bool) for one in found):
            raise Refusal(INVALID, f"The argument {name!r} is not a list of numbers.")
        return list(found)

    def _get(self, name: str, kind: type, default: Any) -> Any:
        value = self._arguments.get(name, default)
        if value is _MISSING:
            raise Refusal(INVALID, f"The argument {name!r} is missing.")
        if value is not default and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            raise Refusal(INVALID, f"The argument {name!r} is not a {kind.__name__}.")
        return value

    def tell(self, event: dict[str, Any]) -> None:
        """Send an event, before the result."""
        self.channel.send({"event": event})

    def client_is_there(self) -> bool:
        """Whether there is still somebody who waits for the result."""
        connection = self.channel.socket
        readable, _, _ = select.select([connection], [], [], 0)
        if not readable:
            return True
        try:
            return bool(connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return True
        except OSError:
            return False


Operation = Callable[[Request], Any]
OPERATIONS: Final[dict[str, Operation]] = {}


def operation(name: str) -> Callable[[Operation], Operation]:
    """Make a function an operation of the daemon's."""

    def register(function: Operation) -> Operation:
        OPERATIONS[name] = function
        return function

    return register
