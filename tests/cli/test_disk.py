"""``paravirt disk``."""

from __future__ import annotations

from pathlib import Path

import pytest

from paravirt.cli.main import main
from paravirt.domain0.block.opening import open_image


def test_an_overlay_of_a_compressed_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw, packed, over = tmp_path / "raw", tmp_path / "packed", tmp_path / "over"
    raw.write_bytes(b"0123456789abcdef" * 1024)
    assert main(["disk", "compress", str(raw), str(packed)]) == 0
    assert packed.stat().st_size < raw.stat().st_size
    assert main(["disk", "overlay", "--format", "zstd", str(packed), str(over)]) == 0
    image = open_image(over, "overlay")
    data = bytearray(16384)
    image.read(0, [memoryview(data)])
    image.close()
    assert data == raw.read_bytes()
    assert main(["disk", "overlay", str(tmp_path / "nosuch"), str(over)]) == 2
    assert "nosuch" in capsys.readouterr().err
