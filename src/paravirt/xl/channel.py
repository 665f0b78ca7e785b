"""The verb about channels: channel-list."""

from __future__ import annotations

from typing import Final

from paravirt.domain0.xlcfg.channels import KIND, PTY
from paravirt.xl.client import Daemon, Options
from paravirt.xl.devices import frontend_numbers

_HEAD: Final = "{:<3} {:<2} {:<5} {:<6} {:>8} {:<10} {:<30}"
_LINE: Final = "{:<3} {:<2} {:<5} {:<6} {:<8} {:<10} {}"


def channel_list(options: Options) -> int:
    """``xl channel-list``. As in Xen, channels are counted from 0, and their consoles (``xl console -n``) from 1."""
    daemon = Daemon()
    print(_HEAD.format("Idx", "BE", "state", "evt-ch", "ring-ref", "connection", ""))
    for domain in options.arguments:
        for index, row in enumerate(daemon.call("devices", domain=domain, kind=KIND)):
            numbers = frontend_numbers(row, "state", "port", "ring-ref")
            connection = row["settings"]["connection"]
            where = f"{row['frontend_nodes'].get('tty', ''):<30} " if connection == PTY else ""
            print(_LINE.format(index, 0, *numbers, connection, where))
    return 0
