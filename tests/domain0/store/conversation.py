r"""Conversations with a store, written down.

A transcript is read by people and by the tests. After a head of ``#`` lines each line is one of

    5> WRITE data/a|1       domain 5 asks: the type of message and the payload, | for NUL
    5/2> READ data/a|       the same in its transaction 2
    5< WRITE OK|            the reply
    5! data/a|token|        an event; those of the asker are in their place, those of others follow
    * introduce 5           a domain comes, or: shut down 5, release 5
    # ...                   a remark

``{a*300}`` stands for 300 a's, a long answer for its length and checksum, and a generation is not shown.
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path

from paravirt.abi.io import xs_wire

from .clients import NAMES, TYPES, Answer, Asked

TRANSCRIPTS = Path(__file__).with_name("transcripts")
LONG = 200
_REQUEST = re.compile(r"(\d+)(?:/(\d+))?> (\S+)(?: (.*))?")
_EVENT = re.compile(r"\* (introduce|shut down|release) (\d+)")
_REPEATED = re.compile(r"\{(.)\*(\d+)\}")


def is_question(line: str) -> bool:
    """Whether a line of a transcript is not an answer."""
    return not re.match(r"\d+(/\d+)?[<!]", line)


def converse(asked: Asked, questions: list[str]) -> list[str]:
    """Ask, and write questions and answers down."""
    lines = []
    for line in questions:
        lines.append(line)
        event = _EVENT.fullmatch(line)
        request = _REQUEST.fullmatch(line)
        if event is not None:
            domid = int(event[2])
            {"introduce": asked.introduce, "shut down": asked.shut_down, "release": asked.release}[event[1]](domid)
            lines += _told(asked, None)
        elif request is not None:
            domid, transaction = int(request[1]), int(request[2] or 0)
            kind = TYPES[request[3]] if request[3] in TYPES else int(request[3])
            answer = asked.ask(domid, kind, _payload(request[4] or ""), transaction)
            lines += _show_answer(domid, transaction, answer)
            lines += _told(asked, domid)
        else:
            assert not line or line.startswith("#"), f"not a line of a conversation: {line!r}"
    return lines


def _payload(text: str) -> bytes:
    return _REPEATED.sub(lambda match: match[1] * int(match[2]), text).replace("|", "\0").encode("latin-1")


def _show(payload: bytes) -> str:
    if len(payload) > LONG:
        return f"({len(payload)} bytes, crc32 {zlib.crc32(payload):08x})"
    return payload.replace(b"\0", b"|").decode("latin-1")


def _show_answer(domid: int, transaction: int, answer: Answer) -> list[str]:
    assert answer.reply is not None
    payload = answer.reply.payload
    if answer.reply.type == xs_wire.XS_DIRECTORY_PART:
        payload = b"?" + payload[payload.index(b"\0") :]
    who = f"{domid}/{transaction}" if transaction else str(domid)
    lines = [f"{domid}! {_show(event)}" for event in answer.before]
    lines.append(f"{who}< {NAMES[answer.reply.type]} {_show(payload)}".rstrip())
    return lines + [f"{domid}! {_show(event)}" for event in answer.after]


def _told(asked: Asked, asker: int | None) -> list[str]:
    return [f"{domid}! {_show(event)}" for domid in asked.domids if domid != asker for event in asked.events(domid)]
