"""Domains' configurations from xl.cfg texts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paravirt.domain0.domainlimits import DomainLimits
from paravirt.domain0.xlcfg.config import (
    ACTIONS,
    EVENTS,
    DomainConfig,
    cpu_set,
    read_config,
)
from paravirt.domain0.xlcfg.grammar import ConfigError, render
from paravirt.errors import UserError

UUID = "12345678-1234-5678-1234-567812345678"
BASE = f'name="a"\nkernel="/k"\nuuid="{UUID}"\n'


def config(text: str) -> DomainConfig:
    return read_config(BASE + text, "t.cfg").config


def test_defaults_are_those_of_xl() -> None:
    expected = DomainConfig(
        name="a", kernel="/k", uuid=UUID, memory=32, maxmem=32, vcpus=1, maxvcpus=1, actions=dict(EVENTS)
    )
    assert config("") == expected
    assert EVENTS == {
        "on_poweroff": "destroy",
        "on_reboot": "restart",
        "on_watchdog": "destroy",
        "on_crash": "destroy",
        "on_soft_reset": "soft-reset",
    }


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ('pool="other"', "pool", "other"),
        ("memory=64", "memory", 64),
        ("memory=64", "maxmem", 64),
        ("memory=0x40", "memory", 64),
        ('memory="64"', "memory", 64),
        ("memory=0100", "memory", 64),
        ("maxmem=64", "memory", 64),
        ("memory=64;maxmem=128", "maxmem", 128),
        ("vcpus=3", "maxvcpus", 3),
        ("vcpus=3;maxvcpus=4", "vcpus", 3),
        ('extra="x y"', "cmdline", "x y"),
        ('root="/dev/xvda"', "cmdline", "root=/dev/xvda"),
        ('root="/dev/xvda";extra="quiet"', "cmdline", "root=/dev/xvda quiet"),
        ('cmdline="x"', "cmdline", "x"),
        ('ramdisk="/r"', "ramdisk", "/r"),
        ('ramdisk=""', "ramdisk", None),
        ('cpus="all"', "cpus", ("all",)),
        ('vcpus=2;cpus=["0","0-1"]', "cpus", ("0", "0-1")),
        ('vcpus=2;cpus="0"', "cpus", ("0", "0")),
        ('vcpus=2;cpus=["0"]', "cpus", ("0",)),
        ('cpus=["0","1"]', "cpus", ("0",)),
        ("max_event_channels=0x40", "limits", DomainLimits(max_event_channels=64)),
        ("max_grant_version=1;max_maptrack_frames=0", "limits", DomainLimits(None, 0, 1)),
        ("cpu_weight=512;cap=50", "scheduling", {"weight": 512, "cap": 50}),
        ("period=20;slice=5;extratime=0", "scheduling", {"period": 20_000_000, "slice": 5_000_000, "extratime": 0}),
        ("max_grant_frames=4", "limits", DomainLimits(max_grant_frames=4)),
        ('name="b"', "name", "b"),
    ],
)
def test_settings(text: str, field: str, value: object) -> None:
    assert getattr(config(text), field) == value


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_at_every_event(event: str, action: str) -> None:
    assert config(f'{event}="{action}"').actions == {**EVENTS, event: action}


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('memory="x"', "memory"),
        ('memory="12x"', "memory"),
        ("memory=08", "memory"),
        ("memory=0", "memory"),
        ("memory=99999999999999999999", "memory"),
        ("memory=[5]", "memory"),
        ("maxmem=10;memory=20", "maxmem"),
        ("vcpus=0", "vcpus"),
        ("vcpus=33", "vcpus"),
        ("vcpus=2;maxvcpus=1", "maxvcpus"),
        ('name=["a"]', "name"),
        ('name=""', "name"),
        ('name="a/b"', "name"),
        ("kernel=[]", "kernel"),
        ('uuid="x"', "uuid"),
        ('on_crash="foo"', "on_crash"),
        ('on_crash="soft-reset"', "on_crash"),
        ('on_soft_reset="soft-reset"', "on_soft_reset"),
        ('type="hvm"', "type"),
        ('type="pvh"', "type"),
        ('type="x"', "type"),
        ('builder="hvm"', "builder"),
        ('disk=["/dev/sda,raw"]', "disk"),
        ('vif=["model=e1000"]', "vif"),
        ('pci=["00:01.0"]', "pci"),
        ('bootloader="pygrub"', "bootloader"),
        ('cpu_weight="much"', "cpu_weight"),
        ("cap=-1", "cap"),
        ('pool=["other"]', "pool"),
        ('cpus="x"', "cpus"),
        ('cpus=[["0"]]', "cpus"),
        ('tsc_mode="native"', "tsc_mode"),
        ("driver_domain=1", "driver_domain"),
        ('cpuid="host,sse=0"', "cpuid"),
        ('vnuma=[["pnode=0"]]', "vnuma"),
        ("max_grant_frames=100000", "max_grant_frames"),
    ],
)
def test_refused_with_file_line_and_key(text: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(BASE + "\n" + text, "t.cfg")
    assert str(caught.value).startswith(f"t.cfg:5: {key}: ")


@pytest.mark.parametrize(
    "text",
    [
        'type="pv"', 'builder="generic"', "disk=[]", "vif=[ ]", "pci=[]", 'bootloader=""',
        "nomigrate=1", 'tsc_mode="default"', "localtime=0", "e820_host=0", 'cpuid="host"',
        "vnuma=[]", "claim_mode=1",
    ],
)  # fmt: skip
def test_settings_that_ask_for_nothing_are_taken(text: str) -> None:
    parsed = read_config(BASE + text, "t.cfg")
    assert parsed.config == config("") and parsed.warnings == ()


@pytest.mark.parametrize("key", ["acpi", "vnc", "nestedhvm", "foo"])
def test_settings_without_effect_are_not_passed_over_silently(key: str) -> None:
    parsed = read_config(BASE + f"{key}=1", "t.cfg")
    assert parsed.config == config("")
    assert len(parsed.warnings) == 1 and parsed.warnings[0].startswith(f"t.cfg:4: warning: {key}: ")


def test_a_command_line_wins_over_root_and_extra_and_says_so() -> None:
    parsed = read_config(BASE + 'cmdline="x"\nextra="y"\n', "t.cfg")
    assert parsed.config.cmdline == "x" and "extra" in parsed.warnings[0]


@pytest.mark.parametrize(("text", "word"), [('kernel="k"', "name"), ('name="a"', "kernel")])
def test_what_must_be_there(text: str, word: str) -> None:
    with pytest.raises(UserError, match=f"^t.cfg: .*{word}"):
        read_config(text, "t.cfg")


def test_a_boot_loader_is_refused_as_such() -> None:
    with pytest.raises(ConfigError, match="bootloader"):
        read_config('name="a"\nbootloader="pygrub"', "t.cfg")


def test_files_start_in_the_folder() -> None:
    parsed = read_config('name="a"\nkernel="k"\nramdisk="/abs"', "t.cfg", Path("/home"))
    config = parsed.config
    assert (config.kernel, config.path(config.kernel), config.path("/abs")) == ("k", "/home/k", "/abs")


def test_without_an_identifier_each_reading_makes_one() -> None:
    one, other = (read_config('name="a"\nkernel="k"', "t.cfg").config for _ in range(2))
    assert one.uuid != other.uuid


def test_the_command_line_overrides_the_file() -> None:
    got = read_config(BASE + "memory=64", "t.cfg", overrides=["memory=32;vcpus=2", 'extra="x"']).config
    assert (got.memory, got.vcpus, got.cmdline) == (32, 2, "x")


@pytest.mark.parametrize("wrong", ['memory="much"', "memory=64=", 'memory="'])
def test_what_is_wrong_on_the_command_line_is_said_to_be_there(wrong: str) -> None:
    for text in (BASE, BASE.rstrip("\n")):
        with pytest.raises(ConfigError, match=r"^command line: memory: "):
            read_config(text, "t.cfg", overrides=["vcpus=2", wrong])
        with pytest.raises(ConfigError, match=r"^t.cfg:[0-9]+: memory: "):
            read_config(text + "\n" + wrong, "t.cfg", overrides=["vcpus=2"])
    warnings = read_config(BASE, "t.cfg", overrides=["nonsense=1"]).warnings
    assert warnings and warnings[0].startswith("command line: warning: nonsense: ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("all", {0, 1, 2, 3}), ("0", {0}), ("1-3", {1, 2, 3}), ("0-3,^1", {0, 2, 3}), ("all,^0", {1, 2, 3}), ("5", {5})],
)
def test_sets_of_physical_cpus(text: str, expected: set[int]) -> None:
    assert cpu_set(text, 4) == expected


@pytest.mark.parametrize("text", ["", "x", "3-1", "0,^0", "1-", "-1", "^1", "99999999999"])
def test_no_sets_of_physical_cpus(text: str) -> None:
    with pytest.raises(UserError):
        cpu_set(text, 4)


configs = st.builds(
    lambda memory, more, vcpus, extra, cmdline, actions: replace(
        config(""),
        memory=memory,
        maxmem=memory + more,
        vcpus=vcpus,
        maxvcpus=min(32, vcpus + extra),
        cmdline=cmdline,
        actions={**EVENTS, **actions},
        given=("vcpus", "maxvcpus"),
    ),
    st.integers(1, 1 << 19),
    st.integers(0, 1 << 19),
    st.integers(1, 32),
    st.integers(0, 31),
    st.text(st.characters(codec="utf-8"), max_size=30),
    st.dictionaries(st.sampled_from(list(EVENTS)), st.sampled_from(ACTIONS)),
)


@given(configs)
def test_a_configuration_survives_text_and_json(wanted: DomainConfig) -> None:
    settings = {
        "memory": wanted.memory,
        "maxmem": wanted.maxmem,
        "vcpus": wanted.vcpus,
        "maxvcpus": wanted.maxvcpus,
        "cmdline": wanted.cmdline,
        **{event: action for event, action in wanted.actions.items() if action != "soft-reset"},
    }
    assert config("\n".join(f"{key}={render(value)}" for key, value in settings.items())) == wanted
    assert DomainConfig.from_json(wanted.to_json()) == wanted


@pytest.mark.parametrize(
    "change",
    [
        {"memory": "64"}, {"memory": True}, {"memory": 0}, {"maxmem": 1}, {"vcpus": 33}, {"name": ""}, {"name": 5},
        {"kernel": None}, {"uuid": "x"}, {"actions": {}}, {"actions": {**EVENTS, "on_crash": "soft-reset"}},
        {"cpus": ["x"]}, {"other": 1}, {"cpus": [1]}, {"cpus": "0"},
        {"given": "vcpus"}, {"given": ["cpus"]}, {"limits": []}, {"limits": {"max_grant_version": 3}}, {"devices": []},
        {"scheduling": {"weight": "1"}}, {"scheduling": {"heaviness": 1}}, {"folder": None},
    ],
)  # fmt: skip
def test_json_is_checked(change: dict[str, object]) -> None:
    with pytest.raises(UserError):
        DomainConfig.from_json({**config("").to_json(), **change})
