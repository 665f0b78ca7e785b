"""The backend's states: the usual lives of a device, and frontends that do anything at any time."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from paravirt.abi.io.xenbus import (
    XenbusStateClosed,
    XenbusStateClosing,
    XenbusStateConnected,
    XenbusStateInitialised,
    XenbusStateInitialising,
    XenbusStateInitWait,
    XenbusStateUnknown,
)
from paravirt.domain0.devices.xenbus import BackendState

UNKNOWN, INITIALISING, INIT_WAIT = XenbusStateUnknown, XenbusStateInitialising, XenbusStateInitWait
INITIALISED, CONNECTED = XenbusStateInitialised, XenbusStateConnected
CLOSING, CLOSED = XenbusStateClosing, XenbusStateClosed


class Device:
    """A driver that writes down what it is told. With ``slow``, requests stay in flight until :meth:`drain`."""

    def __init__(self, slow: bool = False) -> None:
        self.slow = slow
        self.is_good = True
        self.connected = self.offered = self.is_gone = False
        self.log: list[str] = []
        self.waiting: Callable[[], None] | None = None
        self.back = BackendState(self)

    def offer(self) -> None:
        assert not self.connected and self.waiting is None and not self.is_gone
        self.offered = True
        self.log.append("offer")

    def connect(self) -> bool:
        assert self.offered and not self.connected and self.waiting is None and not self.is_gone
        self.connected = True
        self.log.append("connect")
        return self.is_good

    def disconnect(self, done: Callable[[], None]) -> None:
        assert self.waiting is None and not self.is_gone
        if not self.connected or not self.slow:
            self.finish(done)
        else:
            self.waiting = done

    def finish(self, done: Callable[[], None]) -> None:
        if self.connected:
            self.log.append("disconnect")
        self.connected = self.offered = False
        done()

    def drain(self) -> None:
        if self.waiting is not None:
            done, self.waiting = self.waiting, None
            self.finish(done)

    def publish(self, state: int) -> None:
        assert not self.is_gone
        assert state != CONNECTED or self.connected
        assert state not in (INIT_WAIT, CLOSED) or not self.connected
        self.log.append(str(state))

    def gone(self) -> None:
        assert not self.connected and not self.is_gone and self.back.state == CLOSED
        self.is_gone = True
        self.log.append("gone")

    def told(self, *states: int) -> str:
        """The log of what is done when the frontend publishes these states."""
        self.log.clear()
        for state in states:
            self.back.frontend_changed(state)
        return " ".join(self.log)


def started(slow: bool = False) -> Device:
    device = Device(slow)
    device.back.start()
    assert device.log == ["offer", "2"]
    return device


def test_a_block_devices_life() -> None:
    device = started()
    assert device.told(INITIALISING, INITIALISED, CONNECTED) == "connect 4"
    assert device.told(CLOSING) == "5"
    assert device.told(CLOSED) == "disconnect 6"
    assert device.told(INITIALISING, INITIALISED) == "offer 2 connect 4"


def test_a_network_devices_frontend_connects_in_one_step() -> None:
    assert started().told(INITIALISING, CONNECTED) == "connect 4"


def test_removal_waits_for_the_frontend() -> None:
    device = started()
    device.told(CONNECTED)
    device.back.close()
    assert device.log == ["connect", "4", "5"]
    assert device.told(CLOSING, CLOSED) == "disconnect 6 gone"
    assert device.told(INITIALISING, CONNECTED) == ""


def test_what_no_driver_uses_is_removed_at_once() -> None:
    device = started()
    device.back.close()
    assert device.log[2:] == ["6", "gone"]


def test_a_frontend_that_crashed_and_begins_anew() -> None:
    device = started(slow=True)
    device.told(CONNECTED)
    assert device.told(INITIALISING, INITIALISED) == ""
    device.drain()
    assert device.log == ["disconnect", "offer", "2", "connect", "4"]


def test_a_fault_needs_a_new_beginning() -> None:
    device = started()
    device.told(CONNECTED)
    device.log.clear()
    device.back.fail()
    assert device.log == ["disconnect", "5"]
    assert device.told(CONNECTED, INITIALISED, CLOSING) == ""
    assert device.told(CLOSED, INITIALISING, INITIALISED) == "6 offer 2 connect 4"


def test_rings_that_are_no_good() -> None:
    device = started()
    device.is_good = False
    assert device.told(INITIALISED) == "connect disconnect 5"
    device.is_good = True
    assert device.told(CLOSED, INITIALISING, INITIALISED) == "6 offer 2 connect 4"


def test_a_domain_that_ends() -> None:
    device = started(slow=True)
    device.told(CONNECTED)
    device.back.destroy()
    assert not device.is_gone
    device.drain()
    assert device.is_gone


steps = st.lists(
    st.integers(UNKNOWN, CLOSED + 2) | st.sampled_from(["drain", "fail", "close", "destroy", "bad", "good"]),
    max_size=40,
)


@given(steps, st.booleans())
def test_whatever_happens_in_whatever_order(what: list[int | str], slow: bool) -> None:
    """The driver is told what makes sense (its own assertions), and the device ends where its frontend left it."""
    device = started(slow)
    last = INITIALISING
    for step in what:
        if isinstance(step, int):
            last = step
            device.back.frontend_changed(step)
        elif step == "drain":
            device.drain()
        elif step in ("bad", "good"):
            device.is_good = step == "good"
        else:
            getattr(device.back, step)()
            last = UNKNOWN if step == "destroy" else last
    device.drain()
    device.drain()
    assert device.waiting is None
    if last == UNKNOWN:
        assert device.is_gone
    elif last == CLOSED:
        assert device.back.state == CLOSED
    elif last == INITIALISING and not device.is_gone:
        assert device.back.state == INIT_WAIT
    assert device.connected == (device.back.state in (CONNECTED, CLOSING)) or device.back.state == CLOSING
    assert device.is_gone or device.back.is_online or device.back.state == CLOSING
