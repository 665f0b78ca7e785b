"""The backend's half of a device's life: which of its states follows what the frontend does (io/xenbus.h).

Free of I/O. What is to be done when a state is entered is the driver's matter.

    Initialising --start--> InitWait --frontend Initialised or Connected--> Connected
    Connected --frontend Closing, a fault, or close--> Closing --frontend Closed--> Closed
    Closed --frontend Initialising, if it is to stay--> InitWait

A frontend that begins anew without having closed (its kernel crashed and another took its place) has its rings taken
down first. Taking down may need time, because requests are in flight: what the frontend does meanwhile is looked at
afterwards, and only the last of it counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from paravirt.abi.io.xenbus import (
    XenbusStateClosed,
    XenbusStateClosing,
    XenbusStateConnected,
    XenbusStateInitialised,
    XenbusStateInitialising,
    XenbusStateInitWait,
    XenbusStateUnknown,
)


class Driver(Protocol):
    """What a kind of device does when its state changes."""

    def offer(self) -> None:
        """Publish what the frontend may choose from."""

    def connect(self) -> bool:
        """Set up the rings that the frontend has published: false if they are no good."""

    def disconnect(self, done: Callable[[], None]) -> None:
        """Take down what :meth:`connect` set up, if anything, and call ``done`` when nothing is in flight."""

    def publish(self, state: int) -> None:
        """Let the frontend see the new state."""

    def gone(self) -> None:
        """The device does not come back."""


class BackendState:
    """The state of one backend.

    Attributes:
        state: XenbusState*, as published.
        is_online: the device stays when the frontend closes it.
        frontend: what the frontend has published last.
    """

    def __init__(self, driver: Driver) -> None:
        self.state = XenbusStateInitialising
        self.is_online = True
        self._driver = driver
        self.frontend = XenbusStateInitialising
        self._then: int | None = None
        self._is_gone = False

    @property
    def is_busy(self) -> bool:
        """Rings are being taken down."""
        return self._then is not None

    def start(self) -> None:
        """The device has been made."""
        self._offer()

    def frontend_changed(self, state: int) -> None:
        """The frontend has published a state, or what is none; XenbusStateUnknown: its nodes are gone."""
        self.frontend = state
        self._follow()

    def fail(self) -> None:
        """The frontend broke the rules: talk to it no more, until it has closed and begins anew."""
        if self.state in (XenbusStateInitWait, XenbusStateConnected, XenbusStateClosing):
            self._disconnect(XenbusStateClosing)

    def close(self) -> None:
        """The device is to go as soon as the frontend can do without it."""
        self.is_online = False
        if self.state == XenbusStateConnected and not self.is_busy:
            self._enter(XenbusStateClosing)
        elif self.state != XenbusStateClosing:
            self._disconnect(XenbusStateClosed)

    def destroy(self) -> None:
        """The device is to go now, whatever the frontend says."""
        self.is_online = False
        self.frontend = XenbusStateUnknown
        self._follow()

    def _follow(self) -> None:
        """Do what the frontend's last state asks for."""
        if self._is_gone or self.is_busy:
            return
        frontend, state = self.frontend, self.state
        if frontend == XenbusStateUnknown:
            self.is_online = False
            self._disconnect(XenbusStateClosed)
        elif frontend == XenbusStateClosed:
            if state != XenbusStateClosed:
                self._disconnect(XenbusStateClosed)
        elif frontend == XenbusStateClosing and state == XenbusStateConnected:
            self._enter(XenbusStateClosing)
        elif frontend == XenbusStateInitialising:
            if state in (XenbusStateConnected, XenbusStateClosing):
                self._disconnect(XenbusStateInitWait if self.is_online else XenbusStateClosed)
            elif state == XenbusStateClosed and self.is_online:
                self._offer()
        elif frontend in (XenbusStateInitialised, XenbusStateConnected) and state == XenbusStateInitWait:
            if self._driver.connect():
                self._enter(XenbusStateConnected)
            else:
                self.fail()

    def _disconnect(self, then: int) -> None:
        if not self.is_busy and not self._is_gone:
            self._then = then
            self._driver.disconnect(self._disconnected)

    def _disconnected(self) -> None:
        then, self._then = self._then, None
        if then == XenbusStateInitWait and self.is_online:
            self._offer()
        elif then == XenbusStateClosing:
            self._enter(XenbusStateClosing)
        else:
            self._enter(XenbusStateClosed)
            if not self.is_online:
                self._is_gone = True
                self._driver.gone()
        self._follow()

    def _offer(self) -> None:
        self._driver.offer()
        self._enter(XenbusStateInitWait)

    def _enter(self, state: int) -> None:
        self.state = state
        self._driver.publish(state)
