"""A device as a configuration describes it. Light: ``xl`` imports this, and neither numpy nor an engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from paravirt.errors import UserError

Setting = str | int | bool | None


@dataclass(frozen=True)
class DeviceSpec:
    """What a domain's owner wants of one device.

    Attributes:
        kind: the kind of device, by its name in xenstore (``vbd``, ``vif``).
        settings: what that kind of device is told, JSON values only.
    """

    kind: str
    settings: dict[str, Setting] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: Any) -> DeviceSpec:
        """The device that a JSON object describes. It may come from anywhere; its kind checks the settings.

        Raises:
            UserError: it describes none.
        """
        kind, settings = (data.get("kind"), data.get("settings")) if isinstance(data, dict) else (None, None)
        if not isinstance(kind, str) or not isinstance(settings, dict):
            raise UserError(f"A device's description is an object with 'kind' and 'settings', not {data!r}.")
        for name, value in settings.items():
            if not isinstance(name, str) or not isinstance(value, Setting):
                raise UserError(f"A device's description has {value!r} as its {name}.")
        return cls(kind, dict(settings))
