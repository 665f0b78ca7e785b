"""Inside the emulated machine: run test kernels and Linux on the KVM engine, and print how each answers."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from paravirt import Machine, ShutdownReason
from paravirt.machine.choice import kvm_host
from tests.guests import known, known_traces, traces
from tests.oracle import kernels, transcript
from tests.stability.guest import complaint

TIMEOUT_S = 300.0  # of a kernel, on an emulated processor
BOOT_TIMEOUT_S = 900.0
MOST = 20  # differences of a trace that are shown
DONE = "nested: all done"
TRACE = ".trace"
"""Behind the name of a run: its trace on the Unicorn engine, which is the same on every host."""
LINUX = "linux"
"""The run that boots Debian's kernel: files of this name in the folder, with `.kernel` and `.ramdisk` behind it."""


def differences(run: kernels.Run, folder: Path, pcpus: int) -> list[str]:
    """Where a kernel's answers on the KVM engine are not those that are expected of it here."""
    setting = run.setting
    with Machine(memory=256, engine="kvm", pcpus=pcpus) as machine:
        if setting.beside:
            machine.create(
                kernel=folder / run.kernel, cmdline=setting.beside, memory=setting.memory, name=f"{run.name}-beside"
            )
        domain = machine.create(
            kernel=folder / run.kernel,
            cmdline=setting.cmdline,
            memory=setting.memory,
            vcpus=setting.vcpus,
            name=run.name,
        )
        try:
            reason = domain.wait(timeout=TIMEOUT_S)
        except TimeoutError as error:
            return [str(error)]
        text = bytes(domain.console.output).decode("utf-8", "replace")
    ended = reason.name.lower()
    answer = transcript.Transcript(transcript.normalised(text), ended)
    expected = transcript.load(run.name)
    if expected is None:
        return ["it has no transcript"]
    expected = replace(expected, lines=known.expected(run.name, expected.lines, known.on_kvm(kvm_host())))
    return expected.differences(answer, "real Xen", "paravirt on KVM")


def trace_differences(run: kernels.Run, folder: Path) -> list[str]:
    """Where a kernel's trace on the KVM engine is not what is expected of it here, beside the one that Unicorn left."""
    host = kvm_host()
    unicorn = traces.exits((folder / f"{run.name}{TRACE}").read_bytes())
    try:
        kvm = traces.exits(traces.records(run, folder / run.kernel, "kvm", TIMEOUT_S))
    except TimeoutError as error:
        return [str(error)]
    _, places = known_traces.known(bool(host["user_stubs"])).get(run.name, ("", ()))
    found = traces.differences(run, unicorn, kvm, bool(host["honours_slot_256"]))
    return [] if found == list(places) else [f"on Unicorn {ours}, here {theirs}" for ours, theirs in found[:MOST]]


def boot_linux(folder: Path, pcpus: int) -> list[str]:
    """What is wrong with a boot of Linux with a vcpu for each physical CPU, a sum by its shell, and its end."""
    with Machine(memory=320, engine="kvm", pcpus=pcpus) as machine:
        domain = machine.create(
            folder / f"{LINUX}.kernel",
            folder / f"{LINUX}.ramdisk",
            "console=hvc0 panic=-1",
            memory=256,
            vcpus=pcpus,
            name=LINUX,
        )
        try:
            domain.console.expect("# ", BOOT_TIMEOUT_S)
            domain.console.send("echo $(nproc) processors, sum-$((6*7)); poweroff -f\n")
            domain.console.expect(f"{pcpus} processors, sum-42", BOOT_TIMEOUT_S)
            reason = domain.wait(BOOT_TIMEOUT_S)
        except (EOFError, TimeoutError) as error:
            return [f"{type(error).__name__}: {domain.crash_report or domain.console.tail()}"]
        wrong = complaint(domain.console.output)
    if reason is not ShutdownReason.POWEROFF:
        return [f"it ended by {reason.name}"]
    return [wrong] if wrong else []


def main() -> None:
    """Arguments: `answers` or `traces`, the folder with the kernels, the number of physical CPUs, the names of runs."""
    what, folder, pcpus, *names = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:]
    runs = kernels.runs()
    print("nested:", ", ".join(f"{name}={value}" for name, value in kvm_host().items()), flush=True)
    for name in names:
        if name == LINUX:
            found = boot_linux(folder, pcpus)
        elif what == "traces":
            found = trace_differences(runs[name], folder)
        else:
            found = differences(runs[name], folder, pcpus)
        print(f"{name}: {'differs' if found else 'agrees'}", *found, sep="\n    ", flush=True)
    print(DONE, flush=True)


if __name__ == "__main__":
    main()
