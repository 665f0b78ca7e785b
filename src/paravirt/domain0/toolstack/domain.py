"""A running domain, as programs see it."""

from __future__ import annotations

import enum
import os
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

from paravirt.domain0.builder import KernelImage
from paravirt.domain0.console import Console
from paravirt.domain0.devices.registry import Device
from paravirt.domain0.devices.spec import DeviceSpec, Setting
from paravirt.domain0.grants import MappedGrant
from paravirt.domain0.toolstack.limits import KIB_PER_MIB
from paravirt.domain0.toolstack.memory import set_target
from paravirt.domain0.waiting import wait_in_turns
from paravirt.domain0.xlcfg.disks import disk_spec
from paravirt.domain0.xlcfg.vifs import vif_spec
from paravirt.errors import UserError
from paravirt.hypervisor.views import Domain as DomainView
from paravirt.hypervisor.views import scheduler as policies
from paravirt.hypervisor.views.pools import pool_of

if TYPE_CHECKING:
    from paravirt.domain0.toolstack.machine import Machine

T = TypeVar("T")


class ShutdownReason(enum.Enum):
    """Why a domain ended (SHUTDOWN_* of public/sched.h)."""

    POWEROFF = 0
    REBOOT = 1
    SUSPEND = 2
    CRASH = 3
    WATCHDOG = 4
    SOFT_RESET = 5
    DESTROYED = -1


class Domain:
    """A running domain.  Made by :meth:`Machine.create`.

    Attributes:
        domid: its number.
        name: its name.
        memory: MiB that it was made with.
        console: everything it says, from the first byte on, also after it has ended.
        crash_report: registers, stack and the console's tail if it crashed, else None.
        keep: when it shuts down, it stays as it is, with its memory, until it is destroyed.
    """

    def __init__(
        self, machine: Machine, view: DomainView, name: str, image: KernelImage, memory: int, keep: bool = False
    ) -> None:
        self.machine = machine
        self.domid = int(view.domid)
        self.name = name
        self.image = image
        self.memory = memory
        self.keep = keep
        self.console = Console()
        self.crash_report: str | None = None
        self._view: DomainView | None = view
        self._ended = threading.Event()
        self._reason: ShutdownReason | None = None
        self._rings: list[MappedGrant] = []

    def wait(self, timeout: float | None = None) -> ShutdownReason:
        """Wait for the domain's end and say why it ended.

        Raises:
            TimeoutError: it is still running after ``timeout`` seconds.
        """
        if not wait_in_turns(self._ended.wait, timeout):
            raise TimeoutError(f"domain {self.name} is still running after {timeout} s")
        assert self._reason is not None
        return self._reason

    @property
    def ended(self) -> bool:
        """Whether it has shut down, crashed or been destroyed."""
        return self._ended.is_set()

    def pause(self) -> None:
        """Stop it for the time being; pauses nest.

        Raises:
            UserError: it is paused 255 times already, or it is gone.
        """
        self.control(lambda view: view.pause())

    def unpause(self) -> bool:
        """Take back one pause: false if there was none. It goes on when the last one is taken back.

        Raises:
            UserError: it is gone.
        """
        return self.control(lambda view: view.unpause())

    def destroy(self) -> None:
        """End it at once and give its memory back."""
        self.machine._services.call(lambda: self.machine._end(self, ShutdownReason.DESTROYED))

    def set_memory_target(self, memory: int) -> None:
        """Ask the guest to use ``memory`` MiB, and let it have no more: its balloon driver gives back, or takes, the
        difference in its own time.

        Raises:
            UserError: that is nothing, or more than the maximum that the domain was made with; or it is gone.
        """
        self.machine.call(lambda: set_target(self, memory * KIB_PER_MIB))

    def attach_disk(self, target: str | os.PathLike[str], vdev: str = "xvda", **settings: Setting) -> Device:
        """Give it a disk; a Linux guest finds it as ``/dev/xvda``, or what ``vdev`` names.

        Parameters:
            target: the image.
            settings: those of an entry of xl.cfg's ``disk`` list, with ``_`` for ``-``: ``format``, ``access`` ("w",
                or "r"), ``cdrom``, ``discard``, ``rate`` (bytes a second), ``sector_size``.

        Raises:
            UserError: the image cannot be used, or the domain has such a disk; or it is gone.
        """
        return self.attach(disk_spec(target, vdev, **settings))

    def attach_network(self, **settings: Setting) -> Device:
        """Give it a network interface; a Linux guest finds it as ``eth0``, or what is next.

        Parameters:
            settings: those of an entry of xl.cfg's ``vif`` list: ``mac``, ``bridge``, ``ip``, ``rate``, ``script``, …

        Raises:
            UserError: a setting is wrong, or an address is another interface's; or it is gone.
        """
        return self.attach(vif_spec(**settings))

    def attach(self, spec: DeviceSpec) -> Device:
        """Give it a device.

        Raises:
            UserError: the device cannot be made as described; or the domain is gone.
        """

        def attach() -> Device:
            if self._view is None:
                raise UserError(f"The domain {self.name} has ended.")
            return self.machine.devices.attach(self.domid, spec)

        return self.machine.call(attach)

    def detach(self, device: Device, force: bool = False) -> None:
        """Ask the guest to let a device go; with ``force``, take it whether it does or not. It goes soon."""
        self.machine.call(lambda: self.machine.devices.detach(device, force))

    def sched_get(self) -> dict[str, int]:
        """Its parameters under its pool's scheduler, by their names in XEN_DOMCTL_scheduler_op; times in ns."""
        return self.control(policies.sched_get)

    def sched_set(self, **parameters: int) -> None:
        """Change some of them; they act at once.

        Raises:
            UserError: the scheduler has no such parameter, or not with that value (a cap is at most 100 for each
                virtual CPU, as libxl has it); or the domain is gone.
        """

        def change(view: DomainView) -> None:
            cap, most = parameters.get("cap", 0), 100 * len(view.vcpus)
            if isinstance(cap, int) and cap > most:
                raise UserError(f"The cap of the domain {self.name} is 0 to {most}, not {cap}.")
            policies.sched_set(view, parameters)

        self.control(change)

    @property
    def pool(self) -> int:
        """The number of the pool of physical CPUs that it is in: :attr:`Machine.cpupools` moves it to another one.

        Raises:
            UserError: the domain is gone.
        """
        return self.control(pool_of)

    def pin(self, pcpus: Iterable[int], preferred: Iterable[int] = (), vcpu: int | None = None) -> None:
        """Let a virtual CPU, or all of them, run on these physical CPUs only, and rather on the ``preferred`` ones.

        On an engine that does not run them in parallel (:attr:`Machine.parallel_vcpus`) all are together, and what is
        said of one holds for all.

        Raises:
            UserError: the domain's pool has none of them, or the domain no such virtual CPU; or the domain is gone.
        """
        number = -1 if vcpu is None else vcpu
        self.control(lambda view: policies.set_affinity(view, pcpus, preferred, number))

    @property
    def reason(self) -> ShutdownReason | None:
        """Why it ended; None as long as it has not."""
        return self._reason

    def control(self, action: Callable[[DomainView], T]) -> T:
        """Do something with the hypervisor's domain, under the machine lock, and return what comes of it.

        Raises:
            UserError: the domain is gone.
        """
        with self.machine.host.lock:
            if self._view is None:
                raise UserError(f"The domain {self.name} has ended.")
            return action(self._view)
