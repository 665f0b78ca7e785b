"""What a kind of device that domains can have knows of itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from paravirt.domain0.devices.backend import Backend, Facilities
from paravirt.domain0.devices.nodes import DeviceNodes
from paravirt.domain0.devices.spec import Setting


@dataclass(frozen=True)
class Announcement:
    """What is written into xenstore for a device, beside what every device has there (see ``DeviceNodes``).

    Attributes:
        readonly: nodes in the frontend's directory that the guest cannot change.
    """

    frontend: Mapping[str, str]
    backend: Mapping[str, str]
    readonly: Mapping[str, str] = field(default_factory=dict)


class DeviceKind(ABC):
    """One kind of device.

    Its methods are called in Domain 0's thread. What a user got wrong is a :class:`UserError`, and leaves nothing.

    Attributes:
        name: in xenstore: "vbd", "vif".
        title: in sentences: "virtual disk".
    """

    name: str
    title: str

    @abstractmethod
    def number(self, settings: Mapping[str, Setting], taken: Collection[int]) -> int:
        """The number that the device gets; ``taken`` are those of the domain's other devices of this kind.

        Raises:
            UserError: the settings are wrong, or name a number that is taken.
        """

    def completed(
        self, facilities: Facilities, nodes: DeviceNodes, settings: Mapping[str, Setting]
    ) -> dict[str, Setting]:
        """The settings, with what they leave open filled in. The methods below get these."""
        return dict(settings)

    @abstractmethod
    def announce(self, settings: Mapping[str, Setting], nodes: DeviceNodes) -> Announcement:
        """The device's own nodes."""

    @abstractmethod
    def backend(self, facilities: Facilities, nodes: DeviceNodes, settings: Mapping[str, Setting]) -> Backend:
        """Open what is behind the device (an image, a network) and make its backend. Called before the device is
        announced, and followed by ``Backend.start``.

        Raises:
            UserError: it cannot be opened.
        """
