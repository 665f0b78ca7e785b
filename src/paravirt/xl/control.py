"""Verbs that do something with a domain: destroy, shutdown, reboot, pause, unpause, rename, trigger, sysrq."""

from __future__ import annotations

from typing import Any

from paravirt.xl.client import FAILURE, Daemon, Options, parse_number, say
from paravirt.xl.table import VERBS

TRIGGERS = ("nmi", "reset", "init", "power", "sleep", "s3resume")


def destroy(options: Options) -> int:
    """``xl destroy``."""
    Daemon().call("destroy", domain=options.arguments[0])
    return 0


def pause(options: Options) -> int:
    """``xl pause``."""
    Daemon().call("pause", domain=options.arguments[0])
    return 0


def unpause(options: Options) -> int:
    """``xl unpause``."""
    domain = options.arguments[0]
    if not Daemon().call("unpause", domain=domain):
        say(f"xl: the domain {domain} is not paused")
    return 0


def shutdown(options: Options) -> int:
    """``xl shutdown``."""
    return _ask(options, "Shutting down domain", reboot=False)


def reboot(options: Options) -> int:
    """``xl reboot``."""
    return _ask(options, "Rebooting domain", reboot=True)


def _ask(options: Options, words: str, reboot: bool) -> int:
    everyone = "a" in options
    if not options.arguments and not everyone:
        say("xl: name a domain, or say -a for all")
        return FAILURE

    def tell(event: dict[str, Any]) -> None:
        domid = event["domid"]
        if event["kind"] == "asked":
            say(f"{words} {domid}")
        elif event["kind"] == "shutdown":
            say(f"Domain {domid} has been shut down, reason code {event['code']}")
        elif event["kind"] == "destroyed":
            say(f"Domain {domid} has been destroyed")

    arguments: dict[str, Any] = {"reboot": reboot, "wait": "w" in options, "all": everyone}
    if not everyone:
        arguments["domain"] = options.arguments[0]
    Daemon().call_with_events("shutdown", tell, **arguments)
    return 0


def rename(options: Options) -> int:
    """``xl rename``."""
    domain, name = options.arguments[:2]
    Daemon().call("rename", domain=domain, name=name)
    return 0


def trigger(options: Options) -> int:
    """``xl trigger``."""
    domain, name, *rest = options.arguments
    if name not in TRIGGERS:
        say(f"xl: {name!r} is no trigger; there are {', '.join(TRIGGERS)}")
        return FAILURE
    Daemon().call("trigger", domain=domain, trigger=name, vcpu=parse_number(rest[0]) if rest else 0)
    return 0


def sysrq(options: Options) -> int:
    """``xl sysrq``."""
    domain, key = options.arguments[:2]
    if len(key) != 1:
        say("xl: a SysRq key is a single letter")
        print(next(verb for verb in VERBS if verb.name == "sysrq").synopsis)
        return FAILURE
    Daemon().call("sysrq", domain=domain, key=key)
    return 0
