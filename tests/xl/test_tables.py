"""What is printed, byte for byte, beside what Xen's own xl prints of the same facts.

The texts in golden/tables.json are those of Debian's xl 4.17, run on a libxenctrl that answers with the facts there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from paravirt.domain0.daemon.protocol import NOT_FOUND, Refusal
from paravirt.xl import info, listing, main, pools, sched, vcpu
from paravirt.xl.client import Daemon

FACTS: dict[str, Any] = json.loads((Path(__file__).parent / "golden/tables.json").read_text(encoding="utf-8"))


class Facts(Daemon):
    """A daemon that knows these facts."""

    def __init__(self) -> None:
        pass

    def call(self, operation: str, **arguments: Any) -> Any:
        wanted = arguments.get("domain", "")
        if operation == "vcpus":
            return FACTS["vcpus"][wanted]
        if operation == "list" and wanted:
            rows = [row for row in FACTS["list"] if wanted in (row["name"], str(row["domid"]))]
            if not rows:
                raise Refusal(NOT_FOUND, f"There is no domain {wanted!r}.")
            return rows
        return FACTS[operation]


@pytest.mark.parametrize("run", FACTS["runs"], ids=lambda run: " ".join(run["words"]))
def test_the_same_text(
    run: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (info, listing, pools, sched, vcpu):
        monkeypatch.setattr(module, "Daemon", Facts)
    assert main.main(run["words"]) == run["status"]
    assert capsys.readouterr().out == run["output"]
