"""``paravirt bench``: hands its arguments to the benchmark suite."""

from __future__ import annotations

import importlib

import click

from paravirt.errors import UserError


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
)
@click.pass_context
def bench(ctx: click.Context) -> int:
    """Measure boots, traps and system calls."""
    try:
        suite = importlib.import_module("paravirt.bench.main")
    except ModuleNotFoundError as error:
        if error.name not in ("paravirt.bench", "paravirt.bench.main"):
            raise
        raise UserError("This copy of paravirt was installed without its benchmarks.") from error
    return int(suite.run(list(ctx.args)))
