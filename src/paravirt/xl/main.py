"""The entry point of ``xl``: finds the verb, takes its options apart, and turns errors into exit statuses.

==== ==============================================================================
  0  done
  1  it could not be done; a sentence on standard error says why
  2  wrong usage (and 3, 6: no usable configuration file, as of Xen's xl)
130  interrupted with Ctrl-C
==== ==============================================================================
"""

from __future__ import annotations

import getopt
import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from paravirt.domain0.daemon.protocol import INTERNAL, Refusal
from paravirt.errors import UserError
from paravirt.xl.client import FAILURE, USAGE, Exit, Logging, Options, parse_options, say
from paravirt.xl.table import NEVER, NOT_YET, VERBS, Verb, find

BROKEN_PIPE = 141
INTERRUPTED = 130
DEFECT = 70


def main(arguments: list[str] | None = None) -> int:
    """Run ``xl`` with these arguments (by default, those of the process); the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = _run(words)
        sys.stdout.flush()
        return status
    except Exit as end:
        sys.stdout.flush()
        return end.status
    except Refusal as refusal:
        say(f"xl: {refusal}")
        return DEFECT if refusal.code == INTERNAL else FAILURE
    except UserError as error:
        say(f"xl: {error}")
        return FAILURE
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Nothing more can be said there, not even by the interpreter's end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE


def _run(words: list[str]) -> int:
    try:
        given, rest = getopt.getopt(words, "vftTN")
    except getopt.GetoptError as error:
        say(f"xl: there is no global option -{error.opt}; there are -v -f -t -T -N")
        return FAILURE
    dryrun = ("-N", "") in given
    Logging.verbose, Logging.stamped = ("-v", "") in given, ("-T", "") in given
    if not rest:
        print_help(None)
        return FAILURE
    # The others concern nothing here: -t how the progress of migrations is shown, -f Xen's first toolstack, xend.
    word, *others = rest
    if word == "help":
        print_help(others[0] if others else None)
        return 0
    name = find(word)
    if name is None:
        say(f"xl: there is no command {word!r}; 'xl help' lists them")
        return FAILURE
    if name in NOT_YET:
        say(f"xl: {name} is not in this version yet ({NOT_YET[name]}).")
        return FAILURE
    if name in NEVER:
        say(f"xl: {name} {NEVER[name]}.")
        return FAILURE
    verb = next(verb for verb in VERBS if verb.name == name)
    if dryrun and not verb.dryrun:
        say(f"xl: {name} knows no dry run (-N)")
        return FAILURE
    options = _options(verb, others)
    if dryrun:
        options.add("n")
    return _function(verb)(options)


def _options(verb: Verb, words: list[str]) -> Options:
    """A verb's options and arguments; ends the command if they are wrong, or if only help is wanted."""
    try:
        options = parse_options(words, verb.short, dict(verb.long))
    except getopt.GetoptError as error:
        say(f"xl: {verb.name} has no option {error.opt!r}, or not in this way ({error.msg})")
        raise Exit(USAGE) from error
    if "h" in options:
        print_help(verb.name)
        raise Exit(0)
    if len(options.arguments) < verb.required:
        say(f"'xl {verb.name}' requires at least {verb.required} argument{'s' if verb.required > 1 else ''}.\n")
        print_help(verb.name)
        raise Exit(USAGE)
    return options


def _function(verb: Verb) -> Callable[[Options], int]:
    module, _, name = verb.where.partition(":")
    function: Any = getattr(importlib.import_module(f"paravirt.xl.{module}"), name)
    return function  # type: ignore[no-any-return]


def print_help(name: str | None) -> None:
    """What there is to say about one verb, or about all."""
    found = find(name) if name else None
    verb = next((verb for verb in VERBS if verb.name == found), None)
    write = sys.stdout.write
    if verb is not None:
        write(f"{verb.synopsis}\n\n{verb.summary}.\n\n")
        if verb.help:
            write(f"Options:\n\n{verb.help}\n")
        return
    if name:
        write(f"There is no help for {name!r}.\n")
    write("Usage xl [-vfNtT] <subcommand> [args]\n\nxl full list of subcommands:\n\n")
    for verb in VERBS:
        write(f" {verb.name:<19} {verb.summary}\n")
    write("\n'xl help <subcommand>' says more. Not in this version yet:\n " + " ".join(NOT_YET) + "\n")


if __name__ == "__main__":
    sys.exit(main())
