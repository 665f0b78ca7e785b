"""Ask Xen's own store daemon.

Usage, from the root of the clone: python -m tests.domain0.store [--update] [--random FROM TO] [NAME...]

Without options, shows where the daemon's answers differ from the kept transcripts. --update writes them down anew;
the questions are those in the transcripts. --random puts the same random questions to the daemon and to our
store, once for each number from FROM up to TO, and stops at the first difference.
"""

from __future__ import annotations

import argparse
import datetime
import difflib
import sys
from pathlib import Path

from . import conversation, xenstored
from .clients import OurStore
from .questions import compare


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.domain0.store", description=__doc__)
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--random", nargs=2, type=int, metavar=("FROM", "TO"))
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    folder, version = xenstored.obtain(lambda text: print(text, file=sys.stderr))
    if arguments.random:
        return _random(folder, *arguments.random)
    same = True
    for path in sorted(conversation.TRANSCRIPTS.glob("*.txt")):
        if arguments.names and path.stem not in arguments.names:
            continue
        kept = path.read_text(encoding="latin-1").splitlines()
        questions = [line for line in kept if conversation.is_question(line) and not line.startswith("#: ")]
        with xenstored.RealStore(folder) as real:
            said = conversation.converse(real, questions)
        if said == [line for line in kept if not line.startswith("#: ")]:
            print(f"{path.stem}: agrees")
            continue
        same = False
        print(f"{path.stem}: {'updated' if arguments.update else 'differs'}")
        if arguments.update:
            head = f"#: xenstored {version}, {datetime.datetime.now(datetime.UTC).date().isoformat()}"
            path.write_text("\n".join([head, *said]) + "\n", encoding="latin-1")
        else:
            print("\n".join(difflib.unified_diff(kept, said, "transcript", "xenstored", lineterm="", n=2)))
    return 0 if same or arguments.update else 1


def _random(folder: Path, start: int, end: int) -> int:
    for seed in range(start, end):
        with xenstored.RealStore(folder) as real:
            difference = compare(seed, real, OurStore())
        print(f"{seed}: {'differs' if difference else 'agrees'}")
        if difference:
            print("\n".join(difference))
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
