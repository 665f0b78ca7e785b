"""The typed face of direct.py, which is compiled."""

from collections.abc import Sequence

from paravirt.hypervisor.views import Vcpu

def hypercall(vcpu: Vcpu, number: int, arguments: Sequence[int], limit: int = 0) -> tuple[int, int]: ...
