"""Who is compared, and the process that a contender is measured in."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from bench.peers.files import CACHE, ROOT, Files, Pythons
from bench.peers.sides import Reply, Task

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Contender:
    """A side and its precision under one name."""

    name: str
    side: str
    precision: str

    def files(self, files: Files, chunk_ms: int) -> Path:
        """What this side loads for that chunk size."""
        if self.side == "sherpa":
            return files.exports / str(chunk_ms)
        return files.bundle if self.side == "ours" else files.nemo


OURS = Contender("ours, int8", "ours", "int8")
OURS_FP32 = Contender("ours, fp32", "ours", "fp32")
SHERPA = Contender("sherpa-onnx, int8", "sherpa", "int8")
SHERPA_PRODUCTS = Contender("sherpa-onnx, int8 products only", "sherpa", "int8 products")
SHERPA_FP32 = Contender("sherpa-onnx, fp32", "sherpa", "fp32")
NEMO = Contender("NeMo, fp32", "nemo", "fp32")
CONTENDERS = (OURS, OURS_FP32, SHERPA, SHERPA_PRODUCTS, SHERPA_FP32, NEMO)


class Failed(Exception):
    """A contender's process ended; the message says where it wrote why."""


class Process:
    """A worker (worker.py) that loads at once and then waits to be asked."""

    def __init__(self, contender: Contender, task: Task, python: Pythons) -> None:
        self.contender = contender
        self._log = CACHE / "logs" / f"{contender.name.replace(', ', '-').replace(' ', '-')}-{task.chunk_ms}.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        path = os.pathsep.join(str(ROOT / part) for part in ("plugin", "agent")) if task.side == "ours" else ""
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [getattr(python, task.side), "-m", "bench.peers.worker", json.dumps(asdict(task))],
                cwd=ROOT,
                env={**os.environ, **ONE_THREAD, "PYTHONPATH": path},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def ready(self) -> Reply:
        """Wait until it has loaded: its versions, and the most memory it had."""
        return self._answer()

    def measure(self, streams: int, seconds: float, least: int) -> Reply:
        """worker.measure"""
        return self._ask("measure", streams=streams, seconds=seconds, least=least)

    def transcribe(self, batch: int) -> list[str]:
        """worker.transcribe"""
        texts: list[str] = self._ask("transcribe", batch=batch)["texts"]
        return texts

    def close(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()

    def _ask(self, name: str, **arguments: object) -> Reply:
        pipe: IO[str] | None = self._process.stdin
        assert pipe is not None
        try:
            pipe.write(json.dumps({name: arguments}) + "\n")
            pipe.flush()
        except BrokenPipeError:
            pass  # the answer will be missing
        return self._answer()

    def _answer(self) -> Reply:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Failed(f"{self.contender.name} ended; {self._log} says why.")
        reply: Reply = json.loads(line)
        return reply
