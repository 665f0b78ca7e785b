"""Run our kernels on real Xen and show where their answers differ from the transcripts.

Usage: scripts/oracle [--update] [--log] [NAME...]
       scripts/oracle --xl [--log] [NAME...]
       scripts/oracle --golden [SESSION...]
"""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from paravirt.bench.peers.packages import Qemu, Xen, obtain_qemu, obtain_xen
from paravirt.errors import UserError

from ..guests import known
from ..xl import sessions
from . import dom0, golden, kernels, transcript, xenrun, xlrun
from .transcript import Transcript


def _report(text: str) -> None:
    print(f"oracle: {text}", file=sys.stderr)


def _header(run: kernels.Run, xen: Xen, qemu: Qemu) -> dict[str, str]:
    """Who was asked, and when."""
    setting = run.setting
    return {
        "guest": f"{setting.memory} MiB, {setting.vcpus} vcpu, unprivileged",
        "Xen": xen.version,
        "QEMU": f"{qemu.version} (tcg, -cpu max,-smap)",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def _ask(run: kernels.Run, xen: Xen, qemu: Qemu, launch: Path, outdir: Path) -> tuple[Transcript, str]:
    """One kernel's answer on real Xen as a transcript, and Xen's whole log."""
    answer = xenrun.boot(xen, qemu, launch, kernels.build(run.kernel, outdir), run.setting)
    header = _header(run, xen, qemu)
    if answer.ended == "crash" and answer.reason:
        header["Xen said"] = answer.reason
    return Transcript(answer.lines, answer.ended, header), answer.log


def _handle(run: kernels.Run, fresh: Transcript, update: bool, explained: tuple[known.Difference, ...] = ()) -> bool:
    """Compare with the kept transcript, and keep the new one if asked; whether all is well."""
    name, expected_end = run.name, run.setting.ended
    failed = [line for line in fresh.lines if line.startswith("FAILED") or ": FAIL" in line]
    if fresh.ended != expected_end:
        failed.append(f"ended by {fresh.ended}, not {expected_end}")
    kept = transcript.load(name)
    if kept is not None and explained:
        kept = replace(kept, lines=known.expected(name, kept.lines, explained))
    changes = [] if kept is None else kept.differences(fresh, "transcript", "real Xen")
    if update and not failed and (kept is None or changes):
        transcript.TRANSCRIPTS.mkdir(parents=True, exist_ok=True)
        transcript.path_of(name).write_text(fresh.text(), encoding="utf-8")
        print(f"{name}: {'written' if kept is None else 'updated'}")
    elif kept is None:
        print(f"{name}: no transcript yet", *fresh.lines, sep="\n    ")
    else:
        print(f"{name}: {'differs' if changes else 'agrees'}")
    for line in changes:
        print(f"    {line}")
    for line in failed:
        print(f"    on real Xen: {line}")
    return not failed and (update or (kept is not None and not changes))


def _by_xl(runs: list[kernels.Run], update: bool, log: bool) -> bool:
    """Compare domains that Xen's xl makes with the kept transcripts, which are of domains that `launch` made.

    Where there are two domains, `launch` cannot, and these answers are the ones to keep.
    """
    machine = obtain_xen(_report), obtain_qemu(_report), dom0.obtain_dom0(_report)
    good = True
    with tempfile.TemporaryDirectory() as scratch:
        for run, answer in xlrun.answers(runs, machine, Path(scratch)):
            fresh = Transcript(answer.lines, answer.ended, _header(run, *machine[:2]))
            good &= _handle(run, fresh, update and bool(run.setting.beside), known.BY_XL)
        if log:
            print((Path(scratch) / "xen.log").read_text(encoding="utf-8", errors="replace"))
    return good


def _golden(names: list[str], log: bool) -> int:
    """Capture sessions of Xen's toolstack anew."""
    unknown = sorted(set(names) - set(sessions.names()))
    if unknown:
        raise UserError(f"There is no session called {unknown[0]}.")
    machine = obtain_xen(_report), obtain_qemu(_report), dom0.obtain_dom0(_report)
    for name in names or sessions.names():
        with tempfile.TemporaryDirectory() as scratch:
            session = golden.capture(name, machine, Path(scratch))
            if log:
                print((Path(scratch) / "xen.log").read_text(encoding="utf-8", errors="replace"))
        sessions.path_of(name).write_text(session.text(), encoding="utf-8")
        print(f"{name}: {len(session.steps)} commands")
    return 0


def main() -> int:
    """0 when every kernel answers as its transcript says, 1 when one does not, 2 when nothing can be run."""
    parser = argparse.ArgumentParser(prog="scripts/oracle", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--update", action="store_true", help="keep the new answers as transcripts")
    parser.add_argument(
        "--xl", action="store_true", help="make the domains by Xen's own xl, in one boot of a Linux dom0"
    )
    parser.add_argument("--log", action="store_true", help="print all of Xen's console too")
    parser.add_argument(
        "--golden", action="store_true", help="capture what Xen's xl prints; NAME is a session of tests/xl"
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="a kernel under guests/; default: all")
    options = parser.parse_args()
    if options.golden:
        try:
            return _golden(options.names, options.log)
        except UserError as error:
            print(f"oracle: {error}", file=sys.stderr)
            return 2
    known = kernels.runs()
    wanted = set(options.names)
    chosen = [run for run in known.values() if not wanted or {run.name, run.kernel} & wanted]
    unknown = sorted(wanted - {name for run in chosen for name in (run.name, run.kernel)})
    if unknown:
        print(f"oracle: there is no test kernel called {unknown[0]}.", file=sys.stderr)
        return 2
    try:
        if options.xl:
            return 0 if _by_xl(chosen, options.update, options.log) else 1
        xen, qemu = obtain_xen(_report), obtain_qemu(_report)
        if not qemu.software_interrupts_work:
            _report(f"QEMU {qemu.version} gives wrong error codes for INT n: expect differences there")
            if options.update:
                raise UserError("Transcripts are only kept from QEMU 8 or newer.")
        good = True
        with tempfile.TemporaryDirectory() as scratch:
            launch = kernels.build("launch", Path(scratch))
            for run in chosen:
                if run.setting.beside:
                    print(f"{run.name}: needs two domains, and so --xl")
                    continue
                fresh, log = _ask(run, xen, qemu, launch, Path(scratch))
                if options.log:
                    print(log)
                good &= _handle(run, fresh, options.update)
        return 0 if good else 1
    except UserError as error:
        print(f"oracle: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
