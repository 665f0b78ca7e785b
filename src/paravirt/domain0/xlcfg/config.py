"""What a domain is to be: the settings of a configuration file, checked and typed.

Names, defaults and meanings are xl.cfg's (docs/man/xl.cfg.5.pod in Xen's tree, tools/xl/xl_parse.c).
"""

from __future__ import annotations

import dataclasses
import re
import uuid as uuids
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from paravirt.domain0.devices.spec import DeviceSpec
from paravirt.domain0.domainlimits import RANGES, DomainLimits
from paravirt.domain0.xlcfg import keys
from paravirt.domain0.xlcfg.devices import DEVICE_SETTINGS
from paravirt.domain0.xlcfg.grammar import ConfigError, Item, Setting, Source, parse
from paravirt.errors import UserError

MAX_MEMORY_MIB: Final = 1 << 20
MAX_VCPUS: Final = 32
DEFAULT_MEMORY_MIB: Final = 32
ACTIONS: Final = ("destroy", "restart", "rename-restart", "preserve", "coredump-destroy", "coredump-restart")
SOFT_RESET: Final = "soft-reset"
EVENTS: Final = {
    "on_poweroff": "destroy",
    "on_reboot": "restart",
    "on_watchdog": "destroy",
    "on_crash": "destroy",
    "on_soft_reset": SOFT_RESET,
}
"""The settings that say what to do at a domain's end, with their defaults."""

SCHEDULING: Final = {
    "cpu_weight": ("weight", 1),
    "cap": ("cap", 1),
    "period": ("period", 1_000_000),
    "slice": ("slice", 1_000_000),
    "latency": ("latency", 1_000_000),
    "extratime": ("extratime", 1),
}
"""Settings of scheduling: the parameter of domctl, and the unit. Times are milliseconds, as SEDF's were."""

MAX_PARAMETER: Final = 1_000_000
_NUMBER: Final = re.compile(r"\s*(0x[0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)")
_NAME: Final = re.compile(r"[^\s/\x00-\x1f\x7f]([^/\x00-\x1f\x7f]*[^\s/\x00-\x1f\x7f])?")
_CPU_RANGE: Final = re.compile(r"(\^?)(\d+)(?:-(\d+))?")


@dataclasses.dataclass(frozen=True)
class DomainConfig:
    """A domain's configuration.

    Attributes:
        kernel, ramdisk: file names.
        folder: where these start, if relative.
        given: which of ``vcpus`` and ``maxvcpus`` the file sets; libxl's JSON has only those.
        memory, maxmem: MiB; what it gets at first, and what it may grow to.
        vcpus, maxvcpus: virtual CPUs that are online at first, and that it has.
        pool: number or name of the pool of physical CPUs that it is in; None: the first one.
        cpus, cpus_soft: physical CPUs that each vcpu may use, or rather uses; vcpus without an entry may use all.
        actions: by event (``on_crash`` etc.), what is done when the domain ends.
        limits: of the hypervisor's tables.
        scheduling: parameters of scheduling by their names in domctl, times in ns; those not there have the default.
        devices: by setting (``disk`` etc.), the devices that it has from the start.
    """

    name: str
    kernel: str
    uuid: str
    ramdisk: str | None = None
    folder: str = ""
    given: tuple[str, ...] = ()
    cmdline: str = ""
    memory: int = DEFAULT_MEMORY_MIB
    maxmem: int = DEFAULT_MEMORY_MIB
    vcpus: int = 1
    maxvcpus: int = 1
    pool: str | None = None
    cpus: tuple[str, ...] = ()
    cpus_soft: tuple[str, ...] = ()
    limits: DomainLimits = dataclasses.field(default_factory=DomainLimits)
    scheduling: dict[str, int] = dataclasses.field(default_factory=dict)
    actions: dict[str, str] = dataclasses.field(default_factory=lambda: dict(EVENTS))
    devices: dict[str, tuple[DeviceSpec, ...]] = dataclasses.field(default_factory=dict)

    @property
    def all_devices(self) -> tuple[DeviceSpec, ...]:
        """All devices, in the order of the settings' names and their lists."""
        return tuple(device for setting in sorted(self.devices) for device in self.devices[setting])

    def path(self, name: str) -> str:
        """Where a file is that the configuration names."""
        return str(Path(self.folder, name))

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, which :meth:`from_json` reads."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> DomainConfig:
        """The configuration that an object describes. It may come from anywhere, and is checked.

        Raises:
            UserError: the object is no configuration.
        """
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in data.items()
        }
        if "limits" in fields:
            fields["limits"] = DomainLimits.from_json(fields["limits"])
        if "devices" in fields:
            fields["devices"] = _devices_from_json(fields["devices"])
        try:
            config = cls(**fields)
        except TypeError as error:
            raise UserError(f"A domain's configuration has the wrong fields: {error}.") from error
        config.check()
        return config

    def check(self) -> None:
        """Hold every field to its type and range.

        Raises:
            UserError: one of them is wrong.
        """
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            wanted = {"str": str, "int": int, "str | None": (str, type(None))}.get(str(field.type), object)
            if not isinstance(value, wanted) or isinstance(value, bool):  # type: ignore[arg-type]
                raise UserError(f"A domain's configuration has {value!r} as its {field.name}.")
        check_name(self.name)
        _check_range("memory", self.memory, 1, MAX_MEMORY_MIB)
        _check_range("maxmem", self.maxmem, self.memory, MAX_MEMORY_MIB)
        _check_range("vcpus", self.vcpus, 1, MAX_VCPUS)
        _check_range("maxvcpus", self.maxvcpus, self.vcpus, MAX_VCPUS)
        _parse_uuid(self.uuid)
        for entries in (self.cpus, self.cpus_soft):
            if not isinstance(entries, tuple) or not all(isinstance(entry, str) for entry in entries):
                raise UserError(f"A domain's configuration has {entries!r} as its physical CPUs.")
            for entry in entries:
                cpu_set(entry, 1)
        if not isinstance(self.given, tuple) or not set(self.given) <= {"vcpus", "maxvcpus"}:
            raise UserError(f"A domain's configuration has {self.given!r} as what was given.")
        known = {name for name, _ in SCHEDULING.values()}
        if not isinstance(self.scheduling, dict) or not set(self.scheduling) <= known:
            raise UserError(f"A domain's configuration has {self.scheduling!r} as its scheduling.")
        for name, value in self.scheduling.items():
            if not isinstance(value, int) or isinstance(value, bool):
                raise UserError(f"A domain's configuration has {value!r} as its {name}.")
        if not isinstance(self.actions, dict) or set(self.actions) != set(EVENTS):
            raise UserError("A domain's configuration says what to do at other events than there are.")
        for event, action in self.actions.items():
            if action not in ACTIONS and (event, action) != ("on_soft_reset", SOFT_RESET):
                raise UserError(f"A domain's configuration has {action!r} as {event}.")


@dataclasses.dataclass(frozen=True)
class Parsed:
    """A configuration, and what there is to say about its text."""

    config: DomainConfig
    warnings: tuple[str, ...]


def check_name(name: str) -> str:
    """A domain's name, if it can be one.

    Raises:
        UserError: it is empty, all digits, or has a slash or a control character.
    """
    if not _NAME.fullmatch(name) or len(name.encode("utf-8", "replace")) > 255:
        raise UserError(f"{name!r} cannot be a domain's name.")
    return name


def read_config(text: str, name: str, folder: Path | None = None, overrides: Sequence[str] = ()) -> Parsed:
    """A domain's configuration from the text of a file.

    Parameters:
        name: what error messages call the text.
        overrides: settings from a command line, which win.
        folder: where the file names in it, if relative, start; None: they are left as they are.

    Raises:
        ConfigError: the text is wrong somewhere: the message names source, line and setting.
        UserError: something is missing.
    """
    source = Source.of(name, text)
    return _Reader(parse(text, source, overrides), source, folder).read()


def _devices_from_json(data: Any) -> dict[str, tuple[DeviceSpec, ...]]:
    if not isinstance(data, dict) or not all(isinstance(entries, list | tuple) for entries in data.values()):
        raise UserError(f"A domain's configuration has {data!r} as its devices.")
    return {str(key): tuple(DeviceSpec.from_json(entry) for entry in entries) for key, entries in data.items()}


def cpu_set(text: str, count: int) -> frozenset[int]:
    """The physical CPUs that a text like ``0-3,^1`` or ``all`` means, on a host with ``count`` of them.

    Raises:
        UserError: it means none, or is not such a text.
    """
    chosen: set[int] = set()
    for part in text.replace(" ", "").split(","):
        part = part.removeprefix("nodes:").removeprefix("node:") if re.match(r"nodes?:(all|0)$", part) else part
        if part == "all":
            chosen |= set(range(count))
            continue
        match = _CPU_RANGE.fullmatch(part)
        first, last = (int(match[2]), int(match[3] or match[2])) if match else (1, 0)
        if match is None or last < first or last > 0xFFFF:
            raise UserError(f"{text!r} does not name physical CPUs (like 0-3,^1 or all).")
        if match[1]:
            chosen -= set(range(first, last + 1))
        else:
            chosen |= set(range(first, last + 1))
    if not chosen:
        raise UserError(f"{text!r} leaves no physical CPU.")
    return frozenset(chosen)


class _Reader:
    """Takes the settings one by one, and knows which were taken."""

    def __init__(self, settings: dict[str, Setting], source: Source, folder: Path | None) -> None:
        self._settings = settings
        self._source = source
        self._folder = folder
        self._taken: set[str] = set()
        self._warnings: list[str] = []

    def read(self) -> Parsed:
        self._kind_of_guest()
        name = self._string("name")
        if name is None:
            raise UserError(f"{self._source.name}: the domain has no name (a setting 'name' is missing).")
        self._checked("name", lambda: check_name(name))
        actions = {event: self._action(event, default) for event, default in EVENTS.items()}
        memory, maxmem = self._memory()
        vcpus, maxvcpus = self._vcpus()
        config = DomainConfig(
            name=name,
            kernel=self._kernel(),
            uuid=self._uuid(),
            ramdisk=self._string("ramdisk") or None,
            folder="" if self._folder is None else str(self._folder),
            given=tuple(key for key in ("vcpus", "maxvcpus") if key in self._settings),
            cmdline=self._cmdline(),
            memory=memory,
            maxmem=maxmem,
            vcpus=vcpus,
            maxvcpus=maxvcpus,
            pool=self._string("pool") or None,
            cpus=self._cpus("cpus", maxvcpus),
            cpus_soft=self._cpus("cpus_soft", maxvcpus),
            limits=self._limits(),
            scheduling=self._scheduling(),
            actions=actions,
            devices=self._devices(),
        )
        self._rest()
        return Parsed(config, tuple(self._warnings))

    # --- one setting ------------------------------------------------------------------------------------------

    def _take(self, key: str) -> Setting | None:
        self._taken.add(key)
        return self._settings.get(key)

    def _error(self, key: str, message: str) -> ConfigError:
        setting = self._settings[key]
        return ConfigError(self._source, setting.line, message, key)

    def _warn(self, key: str, message: str) -> None:
        self._warnings.append(f"{self._source.at(self._settings[key].line)}: warning: {key}: {message}")

    def _checked(self, key: str, check: Any) -> Any:
        """Make an error of a check one that names the place."""
        try:
            return check()
        except ConfigError:
            raise
        except UserError as error:
            raise self._error(key, str(error)) from error

    def _string(self, key: str) -> str | None:
        setting = self._take(key)
        if setting is None:
            return None
        if not isinstance(setting.item.value, str):
            raise self._error(key, "a single value is expected, not a list")
        return setting.item.value

    def _number(self, key: str, default: int, low: int, high: int) -> int:
        text = self._string(key)
        if text is None:
            return default
        value = _to_number(text)
        if value is None:
            raise self._error(key, f"{text!r} is not a number")
        if not low <= value <= high:
            raise self._error(key, f"{text} is out of range: {low} to {high} are possible")
        return value

    def _optional(self, key: str, low: int, high: int) -> int | None:
        return self._number(key, low, low, high) if key in self._settings else None

    def _strings(self, key: str) -> tuple[str, ...]:
        setting = self._take(key)
        if setting is None:
            return ()
        if isinstance(setting.item.value, str):
            return (setting.item.value,)
        for item in setting.item.value:
            if not isinstance(item.value, str):
                raise self._error(key, "the list has a list in it, where a string or a number is expected")
        return tuple(str(item.value) for item in setting.item.value)

    # --- settings that are acted on ---------------------------------------------------------------------------

    def _kind_of_guest(self) -> None:
        for key, paravirtual in (("type", "pv"), ("builder", "generic")):
            text = self._string(key)
            if text is None or text == paravirtual:
                continue
            if text in ("hvm", "pvh"):
                raise self._error(key, f"{text!r}: only paravirtual guests run here (type = \"pv\")")
            raise self._error(key, f"{text!r} is not a kind of guest")

    def _kernel(self) -> str:
        kernel = self._string("kernel")
        if not kernel:
            self._rest()  # rather say that a boot loader was asked for, if it was
            raise UserError(f"{self._source.name}: the domain has no kernel (a setting 'kernel' is missing).")
        return kernel

    def _cmdline(self) -> str:
        cmdline, root, extra = (self._string(key) for key in ("cmdline", "root", "extra"))
        if cmdline is not None:
            if root is not None or extra is not None:
                self._warn("cmdline", "'root' and 'extra' are passed over, since 'cmdline' is there")
            return cmdline
        return " ".join(part for part in (f"root={root}" if root is not None else None, extra) if part is not None)

    def _uuid(self) -> str:
        text = self._string("uuid")
        if text is None:
            return str(uuids.uuid4())
        return str(self._checked("uuid", lambda: _parse_uuid(text)))

    def _memory(self) -> tuple[int, int]:
        most = self._number("maxmem", 0, 0, MAX_MEMORY_MIB)
        memory = self._number("memory", most or DEFAULT_MEMORY_MIB, 1, MAX_MEMORY_MIB)
        if most and most < memory:
            raise self._error("maxmem", f"{most} MiB are less than the domain starts with ({memory} MiB)")
        return memory, max(most, memory)

    def _vcpus(self) -> tuple[int, int]:
        vcpus = self._number("vcpus", 1, 1, MAX_VCPUS)
        most = self._number("maxvcpus", vcpus, 1, MAX_VCPUS)
        if most < vcpus:
            raise self._error("maxvcpus", f"{most} are less than the domain starts with ({vcpus})")
        return vcpus, most

    def _cpus(self, key: str, vcpus: int) -> tuple[str, ...]:
        """A single text is for all vcpus, a list's entries are for one each."""
        entries = self._strings(key)
        for entry in entries:
            self._checked(key, lambda entry=entry: cpu_set(entry, 1))
        setting = self._settings.get(key)
        if setting is not None and isinstance(setting.item.value, str):
            entries *= vcpus
        return entries[:vcpus]

    def _limits(self) -> DomainLimits:
        return DomainLimits(**{key: self._optional(key, *RANGES[key]) for key in RANGES})

    def _scheduling(self) -> dict[str, int]:
        given = {key: self._optional(key, 0, MAX_PARAMETER) for key in SCHEDULING}
        return {SCHEDULING[key][0]: value * SCHEDULING[key][1] for key, value in given.items() if value is not None}

    def _devices(self) -> dict[str, tuple[DeviceSpec, ...]]:
        found = {}
        for key, setting in DEVICE_SETTINGS.items():
            parse = setting.parse
            entries = [self._checked(key, lambda text=text: parse(text)) for text in self._strings(key)]  # noqa: B023
            if entries:
                found[key] = tuple(entries)
        return found

    def _action(self, key: str, default: str) -> str:
        text = self._string(key)
        if text is None:
            return default
        if text == SOFT_RESET:
            raise self._error(key, "soft resets are not in this version")
        if text not in ACTIONS:
            raise self._error(key, f"{text!r} is not an action; there are {', '.join(ACTIONS)}")
        return text

    # --- all others -------------------------------------------------------------------------------------------

    def _rest(self) -> None:
        for key, setting in self._settings.items():
            if key not in self._taken:
                self._taken.add(key)
                self._untaken(key, setting.item)

    def _untaken(self, key: str, item: Item) -> None:
        empty = item.value in ("", [])
        if key in keys.DEVICES:
            if not empty:
                raise self._error(key, f"{keys.DEVICES[key]} are not in this version")
        elif key in keys.HARDWARE:
            if not empty and item.value != "0":
                raise self._error(key, f"{keys.HARDWARE[key]} of the host are never given to a guest")
        elif key in keys.NEUTRAL:
            if item.value != [] and not self._is_neutral(key, item):
                allowed = ", ".join(value or '""' for value in keys.NEUTRAL[key])
                when = "not in this version" if key in keys.LATER else "not supported"
                raise self._error(key, f"this is {when}" + (f" (only {allowed})" if allowed else ""))
        elif key in keys.OTHER_GUESTS:
            self._warn(key, "this does not concern a paravirtual guest, and is passed over")
        else:
            self._warn(key, "there is no such setting; it is passed over")

    def _is_neutral(self, key: str, item: Item) -> bool:
        if not isinstance(item.value, str):
            return False
        number = _to_number(item.value)
        return item.value in keys.NEUTRAL[key] or (number is not None and str(number) in keys.NEUTRAL[key])


def _to_number(text: str) -> int | None:
    """As C's strtoul with base 0, but the whole text has to be the number."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    digits = match[1]
    if digits.startswith("0x"):
        return int(digits, 16)
    return int(digits, 8 if digits.startswith("0") else 10)


def _parse_uuid(text: str) -> uuids.UUID:
    try:
        return uuids.UUID(text)
    except ValueError as error:
        raise UserError(f"{text!r} is not a UUID.") from error


def _check_range(what: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise UserError(f"A domain's {what} is {low} to {high}, not {value}.")
