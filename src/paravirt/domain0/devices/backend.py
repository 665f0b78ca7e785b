"""What every backend is made of: its nodes, its state, its rings, and its end.

All of it runs in Domain 0's thread.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from paravirt.abi.io.xenbus import (
    XenbusStateReconfigured,
    XenbusStateUnknown,
)
from paravirt.domain0.devices.nodes import DeviceNodes, FrontendNodes
from paravirt.domain0.devices.ring import BackRing
from paravirt.domain0.devices.xenbus import BackendState
from paravirt.domain0.grants import GrantError, Grants, MappedGrant
from paravirt.domain0.iopool import IoPool
from paravirt.domain0.ring import GuestProtocolError, RingError
from paravirt.domain0.services import Services
from paravirt.domain0.store.server import Store

logger = logging.getLogger(__name__)
_NO_STATE = -1


@dataclass(frozen=True)
class Facilities:
    """What Domain 0 gives its backends to work with.

    Attributes:
        io: threads for what waits for the host's disks.
        deterministic: nothing may depend on the host's time: work is done at once, in Domain 0's step.
        has_barriers: the engine's barriers are the host's.
    """

    store: Store
    services: Services
    grants: Grants
    io: IoPool
    deterministic: bool
    has_barriers: bool = False


class MappedRing(BackRing):
    """A shared ring in granted pages, mapped until :meth:`unmap`.

    Raises:
        GrantError: a page is not granted.
        RingError: the indices make no sense.
    """

    def __init__(self, grants: Grants, domid: int, refs: Sequence[int], entry_size: int) -> None:
        self._grants = grants
        self._pages: list[MappedGrant] = grants.map_all(domid, refs)
        try:
            super().__init__(self._pages, entry_size)
        except RingError:
            self.unmap()
            raise

    @property
    def addresses(self) -> list[int]:
        """Where its pages are in the machine's memory."""
        return [page.address for page in self._pages]

    def unmap(self) -> None:
        """Give the pages back; the ring is not to be used any more."""
        self._grants.unmap_all(self._pages)


class Backend(ABC):
    """The backend of one device.

    A kind of device says what it offers, how it is connected to its frontend's rings, and how that is taken down;
    the rest is here.

    Parameters:
        nodes: where the device is in xenstore; it has been announced there.

    Attributes:
        fault: what the frontend did that it is not talked to any more, until it begins anew; or None.
        on_gone: called when the device has gone for good.
    """

    def __init__(self, facilities: Facilities, nodes: DeviceNodes) -> None:
        self.facilities = facilities
        self.nodes = nodes
        self.fault: str | None = None
        self.on_gone: Callable[[], None] = lambda: None
        self._state = BackendState(self)
        self._unwatch: Callable[[], None] = lambda: None

    # --- what a kind of device has of its own -----------------------------------------------------------------

    @abstractmethod
    def features(self) -> Mapping[str, str]:
        """Nodes for the backend's directory from which the frontend may choose."""

    @abstractmethod
    def open(self, frontend: FrontendNodes) -> Mapping[str, str]:
        """Map the rings and bind the event channels that the frontend has published; what it is to know then.

        What was set up before an error is taken down by :meth:`disconnect`.

        Raises:
            GuestProtocolError, GrantError: it has published nonsense.
        """

    @abstractmethod
    def disconnect(self, done: Callable[[], None]) -> None:
        """Take down what :meth:`open` has set up, if anything.  ``done`` is called when nothing is in flight."""

    def counted(self) -> Mapping[str, int]:
        """What it has done until now, by the names that its kind has for it; for xentop."""
        return {}

    # --- its life ---------------------------------------------------------------------------------------------

    @property
    def state(self) -> int:
        """XenbusState*, as published."""
        return self._state.state

    def start(self) -> None:
        """The device has been announced: look what its frontend does."""
        self._state.start()
        path = f"{self.nodes.frontend}/state"
        self._unwatch = self.facilities.store.watch(path, self._frontend_changed)

    def close(self) -> None:
        """Ask the frontend to let the device go; :attr:`on_gone` is called when it has."""
        self.facilities.store.set(f"{self.nodes.backend}/online", "0")
        self._state.close()

    def destroy(self) -> None:
        """The device goes, whatever its frontend thinks of it."""
        self._state.destroy()

    def revoke(self) -> None:
        """The device is taken from its guest, which goes on and is not asked."""
        self.destroy()

    def fail(self, why: object) -> None:
        """The frontend broke the rules: it is disconnected, and the reason is left in xenstore."""
        self._note(why)
        self._state.fail()

    def guarded(self, action: Callable[[], None]) -> Callable[[], None]:
        """``action``, with the frontend's mistakes in it ending the connection."""

        def run() -> None:
            try:
                action()
            except (GuestProtocolError, GrantError) as error:
                self.fail(error)

        return run

    # --- called by its state ----------------------------------------------------------------------------------

    def offer(self) -> None:
        """Publish what the frontend may choose from."""
        self._write(self.features())

    def connect(self) -> bool:
        """Set up the rings that the frontend has published: false if they are no good."""
        self.fault = None
        try:
            self._write(self.open(FrontendNodes(self.facilities.store, self.nodes.frontend)))
        except (GuestProtocolError, GrantError) as error:
            self._note(error)
            return False
        return True

    def publish(self, state: int) -> None:
        """Let the frontend see the new state."""
        self._write({"state": str(state)})

    def gone(self) -> None:
        """The device does not come back."""
        self._unwatch()
        self.on_gone()

    def _note(self, why: object) -> None:
        self.fault = f"{self.nodes.kind} {self.nodes.devid} of domain {self.nodes.domid}: {why}"
        logger.warning("%s", self.fault)
        self.facilities.store.set(self.nodes.error, str(why))

    def _write(self, nodes: Mapping[str, str]) -> None:
        """Write into the backend's directory, unless that has gone with the domain."""
        store = self.facilities.store
        if store.get(self.nodes.backend) is not None:
            for name, value in nodes.items():
                store.set(f"{self.nodes.backend}/{name}", value)

    def _frontend_changed(self, _: str) -> None:
        value = self.facilities.store.get(f"{self.nodes.frontend}/state")
        if value is None:
            self._state.frontend_changed(XenbusStateUnknown)
            return
        text = value.rstrip(b"\0").strip()
        number = int(text) if text.isdigit() and len(text) < 3 else _NO_STATE
        self._state.frontend_changed(number)
        if not XenbusStateUnknown < number <= XenbusStateReconfigured:
            self.fail(f"its state is {text[:20]!r}")
