"""What TensorRT says while it works: why something failed, and how far a build is, whose parts have parts.

phases = Phases(print)
phases.start("Building engine", None, 4)
phases.step("Building engine", 0)              # 25 %

Classes of TensorRT's are made when they are needed: the package they come from is not everywhere.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

logger = logging.getLogger("nemostream")


@dataclass(slots=True)
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class Phases:
    """Says each whole percentage once; safe from any thread."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._lock = say, threading.Lock()
        self._phases: dict[str, _Phase] = {}
        self._said = -1

    def start(self, name: str, parent: str | None, steps: int) -> None:
        with self._lock:
            self._phases[name] = _Phase(parent, max(1, steps))

    def step(self, name: str, step: int) -> None:
        with self._lock:
            if name in self._phases:
                self._phases[name].done = step + 1
            self._tell()

    def finish(self, name: str) -> None:
        with self._lock:
            self._phases.pop(name, None)

    def _tell(self) -> None:
        roots = [name for name, phase in self._phases.items() if phase.parent is None]
        percent = int(100 * self._share(roots[0])) if roots else 0
        if percent > self._said:  # a part that begins again takes nothing back
            self._said = percent
            self._say(f"{percent} %")

    def _share(self, name: str) -> float:
        """Of a phase: its steps, and of the one that it is in what its own parts have done."""
        phase = self._phases[name]
        inner = max((self._share(n) for n, p in self._phases.items() if p.parent == name), default=0.0)
        return min(1.0, (phase.done + inner) / phase.steps)


_logs: dict[str, Any] = {}


def log_of(package: ModuleType) -> Any:
    """Its logger, of which it wants one in a process. Keeps the errors: its calls say only that they failed."""
    if package.__name__ not in _logs:

        class Log(package.ILogger):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                super().__init__()
                self.errors: list[str] = []
                self.interrupted = False

            def log(self, severity: Any, message: str) -> None:
                if severity in (package.ILogger.ERROR, package.ILogger.INTERNAL_ERROR):
                    self.errors.append(message)
                logger.debug("%s: %s", package.__name__, message)

            def why(self) -> str:
                return self.errors[0].partition("\n")[0] if self.errors else "it says no more"

        _logs[package.__name__] = Log()
    return _logs[package.__name__]


@contextmanager
def interruptible(log: Any) -> Iterator[None]:
    """A context in which an interrupt is noted in `log`, which ends a build, and raised at its end: raised in what
    TensorRT calls it would be lost."""
    log.interrupted = False
    if threading.current_thread() is not threading.main_thread():  # interrupts are the main thread's
        yield
        return
    before = signal.signal(signal.SIGINT, lambda *_: setattr(log, "interrupted", True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if log.interrupted:
        raise KeyboardInterrupt


def listener(package: ModuleType, phases: Phases, log: Any) -> Any:
    """Tells `phases` how far a build is, and ends it if `log`, its log_of, was interrupted."""

    class Monitor(package.IProgressMonitor):  # type: ignore[misc, name-defined]
        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            phases.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            phases.step(phase_name, step)
            return not log.interrupted

        def phase_finish(self, phase_name: str) -> None:
            phases.finish(phase_name)

    return Monitor()
