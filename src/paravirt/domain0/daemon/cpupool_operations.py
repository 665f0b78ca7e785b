"""Operations on pools of physical CPUs, shaped like XEN_SYSCTL_cpupool_op."""

from __future__ import annotations

from typing import Any

from paravirt.domain0.daemon.protocol import NOT_FOUND, Refusal
from paravirt.domain0.daemon.requests import Request, operation
from paravirt.domain0.toolstack.cpupools import Cpupool
from paravirt.domain0.xlcfg.config import check_name
from paravirt.errors import UserError


def wanted_pool(request: Request) -> Cpupool:
    """The pool whose number the argument ``pool`` is."""
    try:
        return request.machine.cpupools.find(request.integer("pool"))
    except UserError as error:
        raise Refusal(NOT_FOUND, str(error)) from error


@operation("cpupools")
def list_cpupools(request: Request) -> list[dict[str, Any]]:
    """Every pool, by number."""
    return [
        {"id": pool.id, "name": pool.name, "cpus": list(pool.cpus), "scheduler": pool.scheduler,
         "domains": pool.domains}
        for pool in request.machine.cpupools.all()
    ]  # fmt: skip


@operation("cpupool-check")
def check_cpupool(request: Request) -> None:
    """Refuse a pool that could not be made now."""
    request.machine.cpupools.check(
        check_name(request.string("name")), request.string("scheduler"), request.integers("cpus")
    )


@operation("cpupool-create")
def create_cpupool(request: Request) -> int:
    """Make a pool: its number."""
    name, scheduler = check_name(request.string("name")), request.string("scheduler")
    return request.machine.cpupools.create(name, scheduler, request.integers("cpus")).id


@operation("cpupool-destroy")
def destroy_cpupool(request: Request) -> None:
    """End a pool."""
    request.machine.cpupools.destroy(wanted_pool(request))


@operation("cpupool-rename")
def rename_cpupool(request: Request) -> None:
    """Give a pool another name."""
    request.machine.cpupools.rename(wanted_pool(request), check_name(request.string("name")))


@operation("cpupool-cpu-add")
def add_cpu(request: Request) -> None:
    """Put a free physical CPU into a pool."""
    request.machine.cpupools.add_cpu(wanted_pool(request), request.integer("cpu"))
    request.domains.follow_pools()


@operation("cpupool-cpu-remove")
def remove_cpu(request: Request) -> None:
    """Take a physical CPU out of a pool."""
    request.machine.cpupools.remove_cpu(wanted_pool(request), request.integer("cpu"))
    request.domains.follow_pools()


@operation("cpupool-migrate")
def migrate(request: Request) -> None:
    """Move a domain into a pool, where it may run on all physical CPUs."""
    request.domain().migrate(wanted_pool(request))
