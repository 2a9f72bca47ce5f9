"""Who runs which tests when `make test` gives them to two processes.

One has all that take real time, one at a time; the other has the rest, behind them on what cores are left.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import PurePosixPath

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

REAL_TIME = {"adapter", "bench", "browser", "gateway", "remote", "rooms", "whip", "test_docs.py"}
"""Folders and a file under tests/: what speaks, serves and waits as users do."""
FIRST = "real time"
BEHIND = 10
"""Niceness of the others."""


def takes_real_time(nodeid: str) -> bool:
    """`nodeid`: "tests/rooms/test_demo.py::test_it"."""
    return any(part in REAL_TIME for part in PurePosixPath(nodeid.split("::")[0]).parts)


class TwoSides(LoadScopeScheduling):
    """A scope is handed out whole: first what takes real time, to one worker, and then file by file."""

    def _split_scope(self, nodeid: str) -> str:
        return FIRST if takes_real_time(nodeid) else nodeid.split("::")[0]

    def _assign_work_unit(self, node: WorkerController) -> None:
        if FIRST in self.workqueue:
            self.workqueue.move_to_end(FIRST, last=False)
        super()._assign_work_unit(node)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> TwoSides:
    return TwoSides(config, log)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Whoever gets another test is not, or no longer, at work on those that take real time."""
    if "PYTEST_XDIST_WORKER" in os.environ and not takes_real_time(item.nodeid) and os.nice(0) < BEHIND:
        for thread in os.listdir("/proc/self/task"):  # Linux keeps it by thread, and libraries have begun some
            with suppress(ProcessLookupError):  # one that has ended meanwhile
                os.setpriority(os.PRIO_PROCESS, int(thread), BEHIND)
