"""Scheduler operations and shutdown reasons.

Public header: ``xen/sched.h`` (Xen 4.17).
"""

from ctypes import LittleEndianStructure, c_int32, c_uint16, c_uint32, c_uint64

# sched_op: sub-operations.
SCHEDOP_yield = 0
SCHEDOP_block = 1
SCHEDOP_shutdown = 2
SCHEDOP_poll = 3
SCHEDOP_remote_shutdown = 4
SCHEDOP_shutdown_code = 5
SCHEDOP_watchdog = 6
SCHEDOP_pin_override = 7

# Shutdown.reason.
SHUTDOWN_poweroff = 0
SHUTDOWN_reboot = 1
SHUTDOWN_suspend = 2
SHUTDOWN_crash = 3
SHUTDOWN_watchdog = 4
SHUTDOWN_soft_reset = 5
SHUTDOWN_MAX = 5


class SchedShutdown(LittleEndianStructure):
    """SCHEDOP_shutdown and SCHEDOP_shutdown_code."""

    _fields_ = [
        ("reason", c_uint32),
    ]


class SchedPoll(LittleEndianStructure):
    """SCHEDOP_poll; `timeout` is a system time in nanoseconds, 0 for none."""

    _fields_ = [
        ("ports", c_uint64),
        ("nr_ports", c_uint32),
        ("timeout", c_uint64),
    ]


class SchedRemoteShutdown(LittleEndianStructure):
    """SCHEDOP_remote_shutdown."""

    _fields_ = [
        ("domain_id", c_uint16),
        ("reason", c_uint32),
    ]


class SchedWatchdog(LittleEndianStructure):
    """SCHEDOP_watchdog; `timeout` in seconds, 0 to stop."""

    _fields_ = [
        ("id", c_uint32),
        ("timeout", c_uint32),
    ]


class SchedPinOverride(LittleEndianStructure):
    """SCHEDOP_pin_override; a negative number ends it."""

    _fields_ = [
        ("pcpu", c_int32),
    ]
