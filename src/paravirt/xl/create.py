"""Verbs that take a configuration: create, config-update."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Final

from paravirt.domain0.daemon.protocol import INTERNAL, Refusal
from paravirt.domain0.xlcfg.config import DomainConfig, read_config
from paravirt.xl.client import FAILURE, USAGE, Daemon, Exit, Options, say
from paravirt.xl.libxl_json import domain_config
from paravirt.xl.network import with_scripts
from paravirt.xl.pools import has_pool
from paravirt.xl.rendering import pretty
from paravirt.xl.table import VERBS

ERROR_FAIL: Final = 3
ERROR_INVAL: Final = 6
"""What xl's statuses for these failures are: libxl's error numbers."""

STDIN: Final = ("-", "/dev/stdin")


def create(options: Options) -> int:
    """``xl create``."""
    if "V" in options or "A" in options:
        say("xl: there are no VNC displays, as no guest has a screen")
        return USAGE
    config = _read(options, options.arguments, quiet="q" in options)
    if "d" in options or "n" in options:
        stream = sys.stdout if "n" in options else sys.stderr
        stream.write(pretty(domain_config(with_scripts(config))) + "\n")
    if "n" in options:
        return 0
    daemon = Daemon()
    if config.pool is not None and not has_pool(daemon, config.pool):
        say(f"xl: there is no pool of physical CPUs {config.pool!r}")
        return ERROR_INVAL
    attached = "c" in options or "F" in options
    try:
        made = daemon.call(
            "create",
            config=config.to_json(),
            paused=attached or "p" in options,
            unmonitored="e" in options,
        )
    except Refusal as refusal:
        if refusal.code == INTERNAL:
            raise
        say(f"xl: {refusal}")
        return ERROR_FAIL
    if attached:
        _attend(daemon, str(made["domid"]), options)
    return 0


def _attend(daemon: Daemon, domain: str, options: Options) -> None:
    """Be there from the domain's first instruction on: on its console, or until it is gone."""
    ready = threading.Event()
    follower = None
    if "F" in options:
        follower = threading.Thread(target=_follow, args=(domain, ready), daemon=True)
        follower.start()
        ready.wait()
    if "c" in options:
        from paravirt.xl.console import Attached

        with Attached(domain) as console:
            if "p" not in options:
                daemon.call("unpause", domain=domain)
            console.pass_bytes()
    elif "p" not in options:
        daemon.call("unpause", domain=domain)
    while follower is not None and follower.is_alive():
        follower.join(1)  # in pieces, so that Ctrl-C is heard


def _follow(domain: str, ready: threading.Event) -> None:
    """Tell what happens to a domain, in the words of xl's own monitor, until it is gone."""

    def tell(event: dict[str, object]) -> None:
        kind, domid = event["kind"], event["domid"]
        code = event.get("code", 0)
        words = {
            "following": f"Waiting for domain {event.get('name')} (domid {domid}) to die",
            "shutdown": f"Domain {domid} has shut down, reason code {code} {code:#x}",
            "action": f"Action for shutdown reason code {code} is {event.get('action')}",
            "note": f"{event.get('text')}",
            "cleanup": f"Domain {domid} needs to be cleaned up: destroying the domain",
            "destroyed": f"Domain {domid} has been destroyed.",
            "suspended": "Domain has suspended.",
            "restarted": f"Done. Rebooting now (domid {event.get('new')})",
            "failed": f"The domain cannot be started again: {event.get('message')}",
            "done": "Done. Exiting now",
        }
        if kind in words:
            say(words[str(kind)])
        if kind == "following":
            ready.set()

    try:
        Daemon().call_with_events("follow", tell, domain=domain)
    finally:
        ready.set()


def config_update(options: Options) -> int:
    """``xl config-update``."""
    if not options.arguments:
        say("xl: config-update takes a domain and a file")
        print(next(verb for verb in VERBS if verb.name == "config-update").synopsis)
        return FAILURE
    domain, *words = options.arguments
    try:
        config = _read(options, words, quiet=True)
    except Exit as end:
        raise Exit(256 - ERROR_FAIL if end.status == ERROR_FAIL else end.status) from end  # not as create has it
    if "d" in options or "n" in options:
        sys.stdout.write(pretty(domain_config(with_scripts(config))) + "\n")
    if "n" in options:
        return 0
    Daemon().call("config-update", domain=domain, config=config.to_json())
    return 0


def _read(options: Options, words: list[str], quiet: bool) -> DomainConfig:
    """The configuration that a command line gives: a file, and settings of its own."""
    files = [word for word in words if "=" not in word]
    overrides = [word for word in words if "=" in word]
    named = options.get("f")
    if named is not None:
        files.insert(0, named)
    if len(files) > 1:
        say(f"xl: one configuration file is enough, but here are {' and '.join(files)}")
        raise Exit(USAGE)
    if not files:
        say("xl: no configuration file is given")
        raise Exit(ERROR_INVAL)
    source = files[0]
    try:
        # Names of files may have any bytes.
        data = sys.stdin.buffer.read() if source in STDIN else Path(source).read_bytes()
    except OSError as error:
        say(f"xl: the configuration file {source} cannot be read: {error.strerror}")
        raise Exit(ERROR_FAIL) from error
    if not quiet:
        say(f"Parsing config from {source}")
    parsed = read_config(data.decode("utf-8", "surrogateescape"), source, Path.cwd(), overrides)
    for warning in parsed.warnings:
        say(warning)
    return parsed.config
