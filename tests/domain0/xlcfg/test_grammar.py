"""The grammar of configuration files. What xl 4.17 makes of each text was seen with ``xl create -n``."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paravirt.domain0.xlcfg.grammar import ConfigError, Item, Source, parse, render

T_CFG = Source("t.cfg", 1 << 20)


def plain(item: Item) -> object:
    """A value without its places."""
    return [plain(one) for one in item.value] if isinstance(item.value, list) else item.value


def values(text: str) -> dict[str, object]:
    return {key: plain(setting.item) for key, setting in parse(text, T_CFG).items()}


# Texts that xl takes, and the values it has then.
ACCEPTED = [
    ("", {}),
    ("\n\n;\n;;", {}),
    ('name="a"', {"name": "a"}),
    ('name = "a"  # why\n', {"name": "a"}),
    ('name = "a#b"\n', {"name": "a#b"}),
    ('name="a";memory=1\n', {"name": "a", "memory": "1"}),
    ("name='it\\'s'\n", {"name": "it's"}),
    ("name='a\\\"b'\n", {"name": 'a"b'}),
    ('name="\\n\\t\\a"\n', {"name": "\n\t\a"}),
    ("name=0x10\n", {"name": "0x10"}),
    ("name=010\n", {"name": "010"}),
    ("n.x=1\n", {"n.x": "1"}),
    ('name = "a"\nname += "b"\n', {"name": "ab"}),
    ("l=[1]\nl+=[2]\n", {"l": ["1", "2"]}),
    ("l+=[2]\n", {"l": ["2"]}),
    ("l=[1,2,]\n", {"l": ["1", "2"]}),
    ("l=[\n1\n,\n2 # c\n]\n", {"l": ["1", "2"]}),
    ('l=[[1,["x"]],[]]\n', {"l": [["1", ["x"]], []]}),
    ("memory=1\nmemory=2\n", {"memory": "2"}),
    # Its own parser mistakes these; they mean what they mean in C.
    ('name="a\\x41b\\101"\n', {"name": "aAbA"}),
]

# Texts that it refuses, with the line on which they are wrong.
REFUSED = [
    ('name = "a', 1, "name"),
    ('memory = \nname="a"\n', 1, "memory"),
    ('\n\nname="a\nb"\n', 3, "name"),
    ('name="a\\qb"\n', 1, "name"),
    ('name="a" memory=3\n', 1, "name"),
    ('name="a" \'b\'\n', 1, "name"),
    ("memory=-3\n", 1, "memory"),
    ("a b", 1, ""),
    ("1=2", 1, ""),
    ("=3", 1, ""),
    ("x=y\n", 1, "x"),
    ("x=True\n", 1, "x"),
    ("NAME=1\n", 1, ""),
    ("_n=1\n", 1, ""),
    ("n-x=1\n", 1, ""),
    ("n:1\n", 1, ""),
    ("x=1_0\n", 1, "x"),
    ("x=0X20\n", 1, "x"),
    ("x=1\r\n", 1, "x"),
    ("x=1\0\n", 1, "x"),
    ("x=]\n", 1, "x"),
    ("x=[1\n\n", 3, "x"),
    ("x=[,]\n", 1, "x"),
    ("x=[1;2]\n", 1, "x"),
    ("x=[1\n 2]\n", 2, "x"),
    ("l=[1]\nl+=3\n", 2, "l"),
    ("l=1\nl+=[3]\n", 2, "l"),
    ("if x:\n", 1, ""),
]


@pytest.mark.parametrize(("text", "expected"), ACCEPTED, ids=[repr(text) for text, _ in ACCEPTED])
def test_accepted(text: str, expected: dict[str, object]) -> None:
    assert values(text) == expected


@pytest.mark.parametrize(("text", "line", "key"), REFUSED, ids=[repr(text) for text, _, _ in REFUSED])
def test_refused_with_place(text: str, line: int, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, T_CFG)
    assert (caught.value.line, caught.value.key) == (line, key)
    assert str(caught.value).startswith(f"t.cfg:{line}: {key + ': ' if key else ''}")


def test_a_setting_knows_its_line() -> None:
    settings = parse('a=1\n\nb=[\n "x",\n "y"]\nc=2', T_CFG)
    assert [(key, setting.line) for key, setting in settings.items()] == [("a", 1), ("b", 3), ("c", 6)]
    b = settings["b"].item.value
    assert isinstance(b, list) and [item.line for item in b] == [4, 5]


def test_nesting_is_bounded() -> None:
    with pytest.raises(ConfigError, match="nested"):
        parse("x=" + "[" * 100_000, T_CFG)


names = st.from_regex(r"\A[a-z][a-z0-9_.]*\Z")
atoms = st.text(st.characters(codec="utf-8"), max_size=12) | st.integers(min_value=0).map(str)
trees = st.recursive(atoms, lambda inner: st.lists(inner, max_size=4), max_leaves=12)


@given(st.dictionaries(names, trees, max_size=6), st.sampled_from(["\n", ";", " ; # and\n", "\n\n"]))
def test_what_is_rendered_is_read_again(settings: dict[str, object], separator: str) -> None:
    text = separator.join(f"{key} = {render(value)}" for key, value in settings.items())
    assert values(text) == settings


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_with_a_line_of_it(text: str) -> None:
    try:
        parse(text, T_CFG)
    except ConfigError as error:
        assert 1 <= error.line <= text.count("\n") + 1
