"""What a domain may have of the hypervisor's tables. Light: ``xl`` imports this, and neither numpy nor an engine."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from paravirt.errors import UserError

RANGES: Final = {
    "max_grant_frames": (1, 1024),
    "max_maptrack_frames": (0, 1024),
    "max_grant_version": (1, 2),
    "max_event_channels": (1, 131071),
}
"""The least and the most of each; Xen has no grant tables, or fewer channels than a build needs, below."""


@dataclasses.dataclass(frozen=True)
class DomainLimits:
    """Limits of one domain, by their names in xl.cfg; None stands for Xen's default.

    Attributes:
        max_grant_frames: frames of its grant table (64).
        max_maptrack_frames: frames' worth of handles for grants that it maps: 256 in each (1024).
        max_grant_version: 1, if its grant table cannot have version 2 (2).
        max_event_channels: the highest number of an event channel (1023).
    """

    max_grant_frames: int | None = None
    max_maptrack_frames: int | None = None
    max_grant_version: int | None = None
    max_event_channels: int | None = None

    def given(self) -> dict[str, int]:
        """Those that are not the default."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, data: Any) -> DomainLimits:
        """The limits that an object describes. It may come from anywhere, and is checked.

        Raises:
            UserError: it describes none, or one is out of range.
        """
        if not isinstance(data, dict):
            raise UserError(f"A domain's limits are an object, not {data!r}.")
        for name, value in data.items():
            if name not in RANGES:
                raise UserError(f"There is no limit {name!r} of a domain.")
            if value is None:
                continue
            low, high = RANGES[name]
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise UserError(f"A domain's {name} is {low} to {high}, not {value!r}.")
        return cls(**data)
