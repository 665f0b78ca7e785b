"""Inside the emulated machine: run test kernels on the KVM engine, and print how each answers."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from paravirt import Machine
from paravirt.machine.choice import kvm_host
from tests.guests import known
from tests.oracle import kernels, transcript

TIMEOUT_S = 300.0  # of a kernel, on an emulated processor
DONE = "nested: all done"


def differences(run: kernels.Run, folder: Path) -> list[str]:
    """Where a kernel's answers on the KVM engine are not those that are expected of it here."""
    setting = run.setting
    with Machine(memory=256, engine="kvm", pcpus=1) as machine:
        domain = machine.create(
            kernel=folder / run.kernel,
            cmdline=setting.cmdline,
            memory=setting.memory,
            vcpus=setting.vcpus,
            name=run.name,
        )
        reason = domain.wait(timeout=TIMEOUT_S)
        text = bytes(domain.console.output).decode("utf-8", "replace")
    ended = reason.name.lower() if reason is not None else "timeout"
    answer = transcript.Transcript(transcript.normalised(text), ended)
    expected = transcript.load(run.name)
    if expected is None:
        return ["it has no transcript"]
    expected = replace(expected, lines=known.expected(run.name, expected.lines, known.on_kvm(kvm_host())))
    return expected.differences(answer, "real Xen", "paravirt on KVM")


def main() -> None:
    """Arguments: the folder with the kernels, and the names of runs."""
    folder, *names = sys.argv[1:]
    runs = kernels.runs()
    print("nested:", ", ".join(f"{name}={value}" for name, value in kvm_host().items()), flush=True)
    for name in names:
        found = differences(runs[name], Path(folder))
        print(f"{name}: {'differs' if found else 'agrees'}", *found, sep="\n    ", flush=True)
    print(DONE, flush=True)


if __name__ == "__main__":
    main()
