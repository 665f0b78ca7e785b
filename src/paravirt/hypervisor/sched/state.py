# cython: language_level=3, cdivision=True, boundscheck=False, wraparound=False, initializedcheck=False
# mypy: ignore-errors
# ruff: noqa: F821  (names declared in the .pxd beside this file)
"""What scheduling keeps for each machine: a list of its vcpus, by domain and number, and watchdogs.

Domain numbers are sparse: walking the table of all possible domains at every timer would cost more than the
rest of the loop. The states of all machines in this process form a list whose entries are claimed and given
back atomically and never unlinked; what an entry holds is used only under the lock of the machine that
claimed it.
"""

import cython
from cython.cimports.libc.stdlib import calloc, free, realloc
from cython.cimports.libc.string import memmove
from cython.cimports.paravirt.hypervisor.records import HostPtr, VcpuPtr, u32


def state_of(host: HostPtr) -> MachineStatePtr:
    """The state of a machine, or NULL if it never had a vcpu or a watchdog."""
    state: MachineStatePtr = cython.cast(MachineStatePtr, load_pointer(cython.address(first), ACQUIRE))
    while state != cython.NULL:
        if load_pointer(cython.address(state.host), ACQUIRE) == cython.cast(cython.p_void, host):
            return state
        state = cython.cast(MachineStatePtr, state.next)
    return cython.NULL


def claim(host: HostPtr) -> MachineStatePtr:
    """Take an entry that is nobody's, or add one; NULL when there is no memory."""
    state: MachineStatePtr = cython.cast(MachineStatePtr, load_pointer(cython.address(first), ACQUIRE))
    expected: cython.p_void
    while state != cython.NULL:
        expected = cython.NULL
        if compare_exchange(
            cython.address(state.host), cython.address(expected), host, False, SEQUENTIAL, SEQUENTIAL
        ):
            return state
        state = cython.cast(MachineStatePtr, state.next)
    state = cython.cast(MachineStatePtr, calloc(1, cython.sizeof(MachineState)))
    if state == cython.NULL:
        return cython.NULL
    state.host = host
    expected = load_pointer(cython.address(first), ACQUIRE)
    state.next = expected
    while not compare_exchange(
        cython.address(first), cython.address(expected), state, False, SEQUENTIAL, SEQUENTIAL
    ):
        state.next = expected
    return state


def make_state(host: HostPtr) -> MachineStatePtr:
    """The state of a machine, made if need be; NULL when there is no memory."""
    state: MachineStatePtr = state_of(host)
    return claim(host) if state == cython.NULL else state


def forget_machine(host: HostPtr) -> cython.void:
    """A machine begins, or ends: nothing is kept from another one whose record stood at the same address."""
    state: MachineStatePtr = state_of(host)
    entry: WatchdogsPtr
    if state == cython.NULL:
        return
    while state.watchdogs != cython.NULL:
        entry = state.watchdogs
        state.watchdogs = cython.cast(WatchdogsPtr, entry.next)
        free(entry)
    free(state.vcpus)
    state.vcpus = cython.NULL
    state.count = 0
    state.capacity = 0
    store_pointer(cython.address(state.host), cython.NULL, RELEASE)


def comes_before(a: VcpuPtr, b: VcpuPtr) -> cython.bint:
    """The order of the list."""
    if a.domain.domid != b.domain.domid:
        return a.domain.domid < b.domain.domid
    return a.id < b.id


def add_vcpu(v: VcpuPtr) -> cython.bint:
    """Put a vcpu into its machine's list; false when there is no memory."""
    state: MachineStatePtr = make_state(v.domain.host)
    grown: VcpuPtrPtr
    at: u32 = 0
    if state == cython.NULL:
        return False
    if state.count == state.capacity:
        grown = cython.cast(
            VcpuPtrPtr, realloc(state.vcpus, (2 * state.capacity + 8) * cython.sizeof(VcpuPtr))
        )
        if grown == cython.NULL:
            return False
        state.vcpus = grown
        state.capacity = 2 * state.capacity + 8
    while at < state.count and comes_before(state.vcpus[at], v):
        at += 1
    memmove(
        cython.address(state.vcpus[at + 1]),
        cython.address(state.vcpus[at]),
        (state.count - at) * cython.sizeof(VcpuPtr),
    )
    state.vcpus[at] = v
    state.count += 1
    return True


def drop_vcpu(v: VcpuPtr) -> cython.void:
    """Take a vcpu off the list; the state goes with the machine's last one."""
    state: MachineStatePtr = state_of(v.domain.host)
    at: u32 = 0
    if state == cython.NULL:
        return
    while at < state.count and state.vcpus[at] != v:
        at += 1
    if at == state.count:
        return
    state.count -= 1
    memmove(
        cython.address(state.vcpus[at]),
        cython.address(state.vcpus[at + 1]),
        (state.count - at) * cython.sizeof(VcpuPtr),
    )
    if state.count == 0:
        forget_machine(v.domain.host)
