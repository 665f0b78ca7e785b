"""``paravirt net``, with the daemon's answers given."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from paravirt.cli import net


def test_a_capture_that_has_ended_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = dict.fromkeys(("received_packets", "sent_packets", "spoofed", "denied", "overrun"), 5)
    common = {"mac": "00:16:3e:00:00:01", "mode": "vif-bridge", "addresses": ["10.0.2.2"], **numbers}
    rows = [
        {"name": "vif1.0", "capture_failure": "No space left on device", **common},
        {"name": "vif2.0", "capture_failure": None, **common},
    ]
    monkeypatch.setattr(net, "_ask", lambda operation: rows)
    lines = CliRunner().invoke(net.net, ["list"]).output.splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["vif1.0", "vif2.0"]
    assert lines[3:] == ["The capture of vif1.0 has ended: No space left on device."]
