"""Who runs which tests when `make test` gives them to two processes.

One has all that take real time, one at a time; the other has the rest, behind them on what cores are left.
"""

from __future__ import annotations

import os
from pathlib import PurePosixPath

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

REAL_TIME = {"adapter", "bench", "browser", "gateway", "remote", "rooms", "whip", "test_docs.py"}
"""Folders and a file under tests/: what speaks, serves and waits as users do."""
BEHIND = 10
"""Niceness of the others."""


def takes_real_time(nodeid: str) -> bool:
    """`nodeid`: "tests/rooms/test_demo.py::test_it"."""
    return PurePosixPath(nodeid.split("::")[0]).parts[1] in REAL_TIME


class TwoSides(LoadScopeScheduling):
    """A scope is handed out whole, the largest first: what takes real time, and then file by file."""

    def _split_scope(self, nodeid: str) -> str:
        return "real time" if takes_real_time(nodeid) else nodeid.split("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> TwoSides:
    return TwoSides(config, log)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Whoever gets another test is not, or no longer, at work on those that take real time."""
    if "PYTEST_XDIST_WORKER" in os.environ and not takes_real_time(item.nodeid) and os.nice(0) < BEHIND:
        os.nice(BEHIND)
