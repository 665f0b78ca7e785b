"""A booted Debian guest, and what runs in it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from paravirt import Domain, Machine, UserError
from paravirt.guestkernels import obtain
from paravirt.initramfs import MARKER, build
from paravirt.machine.choice import choose

from ..cli.conftest import Obtain, guest
from ..hypervisor.audited import audited
from ..patience import PATIENCE
from ..stability import guest as stability

__all__ = ["guest"]


THREADS = r"""
#include <pthread.h>
#include <stdio.h>
static long total;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void *work(void *arg)
{
    for (long i = 0; i < 1000; i++) {
        pthread_mutex_lock(&lock);
        total += (long)arg;
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}
int main(void)
{
    pthread_t threads[8];
    for (long i = 0; i < 8; i++)
        if (pthread_create(&threads[i], NULL, work, (void *)(i + 1)))
            return 1;
    for (int i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    printf("threads=%ld\n", total);
    return 0;
}
"""

# Processes that keep numbers of their own in vector registers, the widest that they are told of, and take turns.
VECTORS = r"""
#include <immintrin.h>
#include <sched.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
__attribute__((target("avx"))) static int wide(int number)
{
    __m256i mine = _mm256_set1_epi64x(number), seen;
    asm volatile("vmovdqu %0, %%ymm7" :: "m"(mine) : "xmm7");
    for (int i = 0; i < 500; i++) {
        sched_yield();
        asm volatile("vmovdqu %%ymm7, %0" : "=m"(seen));
        for (int j = 0; j < 4; j++)
            if (((long long *)&seen)[j] != number)
                return 1;
    }
    return 0;
}
static int narrow(int number)
{
    __m128i mine = _mm_set1_epi64x(number), seen;
    asm volatile("movdqu %0, %%xmm7" :: "m"(mine) : "xmm7");
    for (int i = 0; i < 500; i++) {
        sched_yield();
        asm volatile("movdqu %%xmm7, %0" : "=m"(seen));
        for (int j = 0; j < 2; j++)
            if (((long long *)&seen)[j] != number)
                return 1;
    }
    return 0;
}
int main(void)
{
    int wrong = 0, status;
    for (int i = 1; i <= 4; i++)
        if (fork() == 0)
            _exit(__builtin_cpu_supports("avx") ? wide(i) : narrow(i));
    while (wait(&status) > 0)
        wrong += status != 0;
    printf("vectors=%d\n", 40 + wrong);
    return 0;
}
"""


def _program(folder: Path, name: str, text: str) -> Path:
    source, program = folder / f"{name}.c", folder / name
    source.write_text(text)
    subprocess.run(["gcc", "-O1", "-static", "-pthread", "-o", str(program), str(source)], check=True)
    return program


HUSH = "dmesg -n 1"
"""Keeps the kernel's messages, but for its last, off the console: one can come between a line and its end."""


class Shell:
    """A shell in a guest: run a command, and get what it printed."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self._count = 0
        domain.console.expect(MARKER, PATIENCE)
        domain.console.send(f"{HUSH}\n")

    def __call__(self, command: str) -> str:
        """What ``command`` printed.  Its end is marked by a number that the guest computes: no echo can match."""
        self._count += 1
        self.domain.console.send(f"{command}; echo end-$((1000+{self._count}))\n")
        return self.domain.console.expect(f"end-{1000 + self._count}\r\n", PATIENCE).replace("\r", "")


@pytest.fixture(scope="session")
def ramdisk(guest: Obtain, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Busybox, a program with threads, one with vectors, and one whose processes change their address spaces."""
    guest("initramfs")
    folder = tmp_path_factory.mktemp("programs")
    programs = {"threads": THREADS, "vectors": VECTORS}
    return build(
        obtain("busybox").path,
        {f"bin/{name}": _program(folder, name, text) for name, text in programs.items()}
        | {"bin/spaces": stability.program("spaces")},
    )


@pytest.fixture(scope="module", params=["unicorn", "kvm"])
def engine(request: pytest.FixtureRequest) -> str:
    """What guests run on: a test that uses this, or ``machine``, is made on each."""
    try:
        choose(request.param, 1)
    except UserError as error:
        pytest.skip(str(error))
    return str(request.param)


@pytest.fixture
def machine(engine: str) -> Iterator[Machine]:
    with Machine(memory=700, engine=engine) as made, audited(made):
        yield made


@pytest.fixture
def kernel(guest: Obtain) -> Path:
    return guest("debian-cloud")
