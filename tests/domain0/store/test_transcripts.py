"""Our store answers as Xen's own daemon was seen to answer (python -m tests.domain0.store)."""

from __future__ import annotations

import pytest

from paravirt.domain0.store import Store, StoreError

from .clients import OurStore
from .conversation import TRANSCRIPTS, converse, is_question

NAMES = sorted(path.stem for path in TRANSCRIPTS.glob("*.txt"))


@pytest.mark.parametrize("name", NAMES)
def test_conversation(name: str) -> None:
    lines = (TRANSCRIPTS / f"{name}.txt").read_text(encoding="latin-1").splitlines()
    assert lines[0].startswith("#: xenstored 4.17")
    kept = lines[1:]
    questions = [line for line in kept if is_question(line)]
    assert len(kept) > len(questions)
    ours = OurStore()
    ours.store.on_introduce = lambda domid, port: require_introduced(ours.store, domid)
    assert converse(ours, questions) == kept


def require_introduced(store: Store, domid: int) -> None:
    """As the pretended hypervisor has it: there are no other domains than those introduced."""
    if domid not in store.introduced:
        raise StoreError("EINVAL")


def test_there_are_transcripts_of_everything() -> None:
    assert {"conflicts", "domains", "nodes", "permissions", "quotas", "transactions", "watches"} <= set(NAMES)
