"""The entry point of ``paravirt``: finds the command, and turns errors into exit statuses.

==== ================================================================
  0  done; the guest powered off; the last expectation was met
  1  the guest crashed, or ended before an expectation was met
  2  bad usage or input (:class:`paravirt.errors.UserError`)
  3  the guest asked to be rebooted
 70  a defect of paravirt itself
124  the time given with ``--timeout`` was over
130  interrupted with Ctrl-C (and 143 by SIGTERM, 129 by SIGHUP)
141  the reader of the output has gone
==== ================================================================
"""

from __future__ import annotations

import importlib
import signal
import sys
import traceback
from typing import cast

import click

from paravirt.errors import HypervisorBug, UserError

# name → where it is, and its line in the list of commands: nothing is imported for `paravirt --help`.
COMMANDS = {
    "run": ("paravirt.cli.run:run", "Boot one kernel as a guest, in the foreground."),
    "demo": ("paravirt.cli.demo:demo", "Boot Debian's stock kernel to a shell."),
    "guests": ("paravirt.cli.guests:guests", "List the guest kernels that can be had here."),
    "disk": ("paravirt.cli.disk:disk", "Make images for guests' disks."),
    "net": ("paravirt.cli.net:net", "See and change the network of xl's domains."),
    "info": ("paravirt.cli.info:info", "Say what this machine and this build can do."),
    "bench": ("paravirt.cli.bench:bench", "Measure boots, traps and system calls."),
}


class Commands(click.Group):
    """The commands, each imported when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        return cast(click.Command, getattr(importlib.import_module(module), attribute))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


def _version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import PackageNotFoundError, version

        try:
            click.echo(f"paravirt {version('paravirt')}")
        except PackageNotFoundError:
            click.echo("paravirt, run from its source without being installed")
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--version", is_flag=True, callback=_version, expose_value=False, is_eager=True,
              help="Print the version and exit.")  # fmt: skip
def paravirt() -> None:
    """Run Xen's paravirtual guests, unmodified, as an ordinary user."""


def main(arguments: list[str] | None = None) -> int:
    """Run ``paravirt`` with these arguments (by default, those of the process); the exit status."""
    try:
        result = paravirt.main(arguments, prog_name="paravirt", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else error.format_message())
        return 2
    except click.ClickException as error:
        error.show()
        return error.exit_code if error.exit_code != 1 else 2
    except UserError as error:
        click.echo(f"paravirt: {error}", err=True)
        return 2
    except (KeyboardInterrupt, click.Abort) as error:
        cause = error.__cause__ or error  # click puts its own in between
        return 128 + int(cause.args[0] if cause.args else signal.SIGINT)
    except SystemExit:
        # Nothing of ours raises this: click does when the reader of our output has gone, with the status 1,
        # which would mean that a guest crashed.
        return 141
    except HypervisorBug as error:
        traceback.print_exc()
        click.echo(f"paravirt: this is a defect of paravirt, please report it: {error}", err=True)
        return 70


if __name__ == "__main__":
    sys.exit(main())
