from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paravirt.domain0.builder import bzimage as module
from paravirt.errors import UserError

from ._kernels import bzimage


@pytest.mark.parametrize("setup_sects", [0, 1, 4, 64])
@pytest.mark.parametrize("offset", [0, 1, 0x2C0])
def test_the_payload_is_cut_out(setup_sects: int, offset: int) -> None:
    file = bzimage(b"the payload", setup_sects=setup_sects, offset=offset)
    assert module.is_bzimage(file)
    assert bytes(module.payload(file)) == b"the payload"


def test_too_old_a_protocol_is_refused() -> None:
    assert bytes(module.payload(bzimage(b"x", version=0x0208))) == b"x"
    with pytest.raises(UserError, match=r"boot protocol 2\.07"):
        module.payload(bzimage(b"x", version=0x0207))


def test_a_file_that_is_cut_short_is_refused() -> None:
    file = bzimage(b"the payload", setup_sects=1, offset=0)
    end = len(file) - len(b"rest of the file")
    assert bytes(module.payload(file[:end])) == b"the payload"
    for cut in (end - 1, 1024, 0x250):
        with pytest.raises(UserError, match="cut short: its payload ends at byte"):
            module.payload(file[:cut])
    with pytest.raises(UserError, match="within its header"):
        module.payload(file[:0x24F])
    with pytest.raises(UserError, match="without a payload"):
        module.payload(bzimage(b""))


@pytest.mark.parametrize("broken", [0x1FE, 0x202, 0x205])
def test_what_lacks_a_magic_number_is_no_bzimage(broken: int) -> None:
    file = bytearray(bzimage(b"x"))
    file[broken] ^= 1
    assert not module.is_bzimage(bytes(file))
    assert not module.is_bzimage(bytes(file[:0x207]))


@given(st.binary(min_size=0x50, max_size=0x50), st.integers(0x208, 3000))
def test_any_header_ends_in_a_user_error_or_bytes_of_the_file(header: bytes, cut: int) -> None:
    file = bytearray(bzimage(b"payload" * 20))
    file[0x206:0x256] = header
    file = file[:cut]
    assert module.is_bzimage(bytes(file))
    with suppress(UserError):
        assert 0 < len(module.payload(bytes(file))) < len(file)
