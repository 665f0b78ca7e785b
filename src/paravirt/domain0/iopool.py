"""Threads that wait for the host's disks, so that Domain 0 does not.

Who wants I/O takes turns with the others, job by job, however many jobs each has waiting.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from typing import Any, Protocol

from paravirt.domain0.services import Services

logger = logging.getLogger(__name__)


class Job(Protocol):
    """Something that may take long."""

    owner: JobOwner

    def run(self) -> None:
        """Do it, in any thread; whatever goes wrong is kept in the job."""


class JobOwner(Protocol):
    """Who is told in Domain 0's thread that jobs are done."""

    def completed(self, jobs: list[Any]) -> None:
        """These have run."""


class IoPool:
    """A few threads, started when the first job comes.

    Parameters:
        threads: 0: a job runs when it is submitted, and its owner is told in Domain 0's next step; a machine in
            deterministic mode needs that.
    """

    def __init__(self, services: Services, threads: int) -> None:
        self._services = services
        self._threads = threads
        self._started: list[threading.Thread] = []
        self._waiting: OrderedDict[int, deque[Job]] = OrderedDict()
        self._changed = threading.Condition()
        self._done: list[Job] = []
        self._stopping = False

    def submit(self, key: int, job: Job) -> None:
        """Have a job run soon; jobs with the same ``key`` take turns with those with another."""
        if not self._threads:
            self._run(job)
            self._finished(job)
            return
        with self._changed:
            self._waiting.setdefault(key, deque()).append(job)
            self._changed.notify()
        if len(self._started) < self._threads:
            thread = threading.Thread(target=self._work, name=f"domain-0-io-{len(self._started)}", daemon=True)
            self._started.append(thread)
            thread.start()

    def stop(self) -> None:
        """Run what was submitted, and end the threads."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in self._started:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._stopping:
                    self._changed.wait()
                if not self._waiting:
                    return
                key, jobs = self._waiting.popitem(last=False)
                job = jobs.popleft()
                if jobs:
                    self._waiting[key] = jobs
            self._run(job)
            self._finished(job)

    @staticmethod
    def _run(job: Job) -> None:
        # A mistake of ours in one job must not leave the others waiting for ever.
        try:
            job.run()
        except Exception:
            logger.exception("a job of Domain 0's failed")

    def _finished(self, job: Job) -> None:
        with self._changed:
            self._done.append(job)
            is_first = len(self._done) == 1
        if is_first:
            self._services.post(self._tell)

    def _tell(self) -> None:
        with self._changed:
            done, self._done = self._done, []
        owners: dict[int, tuple[JobOwner, list[Job]]] = {}
        for job in done:
            owners.setdefault(id(job.owner), (job.owner, []))[1].append(job)
        for owner, jobs in owners.values():
            try:
                owner.completed(jobs)
            except Exception:
                logger.exception("who is told that jobs of Domain 0's are done failed")
