"""The entry point of ``xl``.

xl talks to a toolstack daemon that keeps guests running between commands. That daemon is not part of this
version, and xl says so instead of pretending.
"""

from __future__ import annotations

import sys

HELP = """\
usage: xl COMMAND [ARGUMENT...]

xl manages guests that a toolstack daemon keeps running. This version of paravirt has no such daemon yet, so
that the only command is:

  help    print this text

To run one guest in the foreground, see `paravirt run --help`.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run ``xl``; the exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] in ([], ["help"], ["-h"], ["--help"]):
        sys.stdout.write(HELP)
        return 0
    print(
        f"xl: '{words[0]}' needs the toolstack daemon, which this version of paravirt does not have yet.",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
