"""Domain 0's thread: it waits for event channels and calls the service behind each.

The hypervisor writes an eventfd when a port of Domain 0's becomes pending or a domain shuts down.  Handlers run in
this thread, one at a time, without the machine lock; they take it (``host.lock``) for what they do to the
hypervisor.  In deterministic mode there is no thread: the machine's own loop calls :meth:`Services.step`.
"""

from __future__ import annotations

import heapq
import itertools
import os
import select
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import Protocol, TypeVar

from paravirt.domain0.ring import GuestProtocolError
from paravirt.errors import HypervisorBug
from paravirt.hypervisor.views import Domain, Host

T = TypeVar("T")


class NativeServer(Protocol):
    """Something with a PortServer (``hypervisor/records.pxd``)."""

    @property
    def address(self) -> int:
        """Where that is."""


class Channel:
    """An event channel between Domain 0 and another domain; made by :meth:`Services.bind`."""

    def __init__(self, services: Services, domain: Domain, remote_domid: int, port: int) -> None:
        self._services = services
        self._domain = domain
        self._host = domain.host
        self.remote_domid = remote_domid
        self.port = port
        self.is_open = True
        self._server: NativeServer | None = None  # lives as long as the channel

    def notify(self) -> None:
        """Send the other domain an event; nothing happens when the channel has been closed."""
        with self._host.lock:
            if self.is_open:
                self._domain.notify(self.port)

    def serve_natively(self, server: NativeServer) -> None:
        """Have native code answer guests' events until the channel is closed; the handler is called for what it
        leaves."""
        self._server = server
        with self._host.lock:
            if self.is_open:
                self._domain.serve_port(self.port, server.address)

    def close(self) -> None:
        """Its events are not handled any more; once is enough."""
        self._services.release(self)


class Services:
    """The control domain of one machine.

    Parameters:
        threaded: false in deterministic mode.
    """

    def __init__(self, threaded: bool) -> None:
        self.event_fd = os.eventfd(0, os.EFD_CLOEXEC)
        self._host: Host | None = None
        self._domain: Domain | None = None
        self._handlers: dict[int, Callable[[], None]] = {}
        self._channels_of: dict[int, list[Channel]] = {}
        self._calls: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timer_numbers = itertools.count()
        self._poll = select.poll()
        self._poll.register(self.event_fd, select.POLLIN)
        self._watched: dict[int, Callable[[int], None]] = {}
        self._shutdown_handler: Callable[[], None] | None = None
        self._stopping = False
        self._threaded = threaded
        self._thread = threading.Thread(target=self._run, name="domain-0", daemon=True)

    def start(self, host: Host, on_shutdown: Callable[[], None]) -> None:
        """Become Domain 0 of ``host``; ``on_shutdown`` is called when some domain may have shut down."""
        self._host = host
        self._shutdown_handler = on_shutdown
        with host.lock:
            self._domain = host.create_service_domain()
        if self._threaded:
            self._thread.start()
        else:
            host.service_step = self.step

    def stop(self) -> None:
        """End the thread."""
        self._stopping = True
        self._wake()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()
        os.close(self.event_fd)
        self.event_fd = -1

    def bind(self, remote_domid: int, remote_port: int, handler: Callable[[], None]) -> Channel:
        """Bind to a domain's unbound port; ``handler`` is called for its events, until the channel is closed or the
        domain has ended.

        Raises:
            GuestProtocolError: the domain has no such port, or not for Domain 0.
        """
        assert self._host is not None and self._domain is not None
        with self._host.lock:
            port = self._domain.bind_interdomain(remote_domid, remote_port)
        if port < 0:
            raise GuestProtocolError(f"event channel {remote_port} of domain {remote_domid} cannot be bound: {port}")
        channel = Channel(self, self._domain, remote_domid, port)
        self._handlers[port] = handler
        self._channels_of.setdefault(remote_domid, []).append(channel)
        return channel

    def release(self, channel: Channel) -> None:
        """Close a channel, if it is not closed yet."""
        assert self._host is not None and self._domain is not None
        if channel.is_open:
            self._channels_of[channel.remote_domid].remove(channel)
            del self._handlers[channel.port]
            with self._host.lock:
                channel.is_open = False
                self._domain.close_port(channel.port)

    def forget(self, remote_domid: int) -> None:
        """Close all channels to a domain: it has ended."""
        for channel in list(self._channels_of.get(remote_domid, [])):
            self.release(channel)
        self._channels_of.pop(remote_domid, None)

    def call(self, function: Callable[[], T]) -> T:
        """Run ``function`` in Domain 0's thread (at once if this is it, or there is none) and return its result."""
        if not self._threaded or threading.current_thread() is self._thread:
            return function()
        done = threading.Event()
        result: list[T] = []
        failure: list[BaseException] = []

        def wrapped() -> None:
            try:
                result.append(function())
            except BaseException as error:  # noqa: BLE001 - handed to the caller below
                failure.append(error)
            done.set()

        self._calls.append(wrapped)
        self._wake()
        done.wait()
        if failure:
            raise failure[0]
        return result[0]

    def post(self, function: Callable[[], None]) -> None:
        """Run ``function`` in Domain 0's thread soon."""
        self._calls.append(function)
        self._wake()

    def call_later(self, delay: float, function: Callable[[], None]) -> None:
        """Run ``function`` in Domain 0's thread, from which this is called, ``delay`` seconds from now.

        Raises:
            HypervisorBug: in deterministic mode, where Domain 0 has no time of its own.
        """
        if not self._threaded:
            raise HypervisorBug("a timer of Domain 0 in deterministic mode")
        heapq.heappush(self._timers, (time.monotonic() + delay, next(self._timer_numbers), function))

    def watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        """Call ``handler`` with what is ready (POLLIN, ...) whenever ``fd`` is, or until other ``events`` are named.

        To be called in Domain 0's thread, which a machine in deterministic mode does not have.
        """
        self._watched[fd] = handler
        self._poll.register(fd, events)

    def unwatch(self, fd: int) -> None:
        """Look at ``fd`` no more."""
        if self._watched.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def cpu_time_ns(self) -> int:
        """How long its thread has run; 0 where it has none of its own."""
        if not self._thread.is_alive() or self._thread.ident is None:
            return 0
        return time.clock_gettime_ns(time.pthread_getcpuclockid(self._thread.ident))

    def step(self) -> None:
        """Handle everything that is pending now."""
        assert self._host is not None
        # What a call posts has its turn after the events of this round: a busy service keeps nobody waiting.
        # Without a thread nothing happens between two rounds, and there may be no next one.
        left = len(self._calls)
        while left:
            self._guarded(self._calls.popleft())
            left = left - 1 if self._threaded else len(self._calls)
        with self._host.lock:
            ports = self._host.take_service_events()
        for port in ports:
            handler = self._handlers.get(port)
            if handler is not None:
                self._guarded(handler)
        if self._shutdown_handler is not None:
            self._guarded(self._shutdown_handler)

    def _guarded(self, function: Callable[..., None], *arguments: object) -> None:
        # A service's mistake must not take the others down; it is our bug and is shown as one.
        try:
            function(*arguments)
        except Exception:  # noqa: BLE001 - shown as our bug
            traceback.print_exc()

    def _wake(self) -> None:
        if self.event_fd >= 0:
            os.eventfd_write(self.event_fd, 1)

    def _run(self) -> None:
        while not self._stopping:
            for fd, events in self._poll.poll(self._until_timer()):
                handler = self._watched.get(fd)
                if fd == self.event_fd:
                    os.eventfd_read(fd)
                    if not self._stopping:
                        self.step()
                elif handler is not None:  # the one before it may have ended it
                    self._guarded(handler, events)
            while self._timers and self._timers[0][0] <= time.monotonic():
                self._guarded(heapq.heappop(self._timers)[2])

    def _until_timer(self) -> float | None:
        """Milliseconds to wait at most, for the next timer."""
        return max(0.0, self._timers[0][0] - time.monotonic()) * 1000 if self._timers else None
