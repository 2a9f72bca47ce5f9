"""The engine's step (group.py): encoder through onnxruntime, greedy decoding, rows gathered and written back."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.peers.sides import ALIGN_SAMPLES, Clock, Samples, Talk, Task, Took, pieces_to_text, version
from nemostream.encoders import Floats
from nemostream.feed import FRONT_FRAMES
from nemostream.group import Group
from nemostream.mel import MelStream
from nemostream.model import Model
from nemostream.scheduler import Slot
from nemostream.work import Work


class Front:
    """Samples to the chunks of one stream: feed.py without requests and voice activity."""

    def __init__(self, model: Model, chunk_frames: int) -> None:
        self._mel = MelStream(model.mel)
        self._width = 8 * chunk_frames
        self._frames: Floats = np.zeros((FRONT_FRAMES, model.mel.n_mels), np.float32)

    def push(self, samples: Samples) -> None:
        self._frames = np.concatenate([self._frames, self._mel.push(samples)])

    @property
    def ready(self) -> bool:
        return len(self._frames) >= self._width

    def take(self) -> Floats:
        chunk, self._frames = self._frames[: self._width], self._frames[self._width :]
        return chunk


class Ours:
    """Side. The rows that are ready are not the first ones, as for most steps of an engine with many streams: so every
    step gathers their state into one block, and writes each row's share of the result back."""

    def __init__(self, task: Task, talk: Samples) -> None:
        self.versions = {name: version(name) for name in ("livekit-plugins-nemo", "onnxruntime", "numpy")}
        self._model = Model.load(Path(task.files), task.precision, 1)
        self._chunk_frames = task.chunk_ms // self._model.frame_ms
        self._chunk_samples = task.chunk_samples
        self._samples = talk
        self._decoder = self._model.decoder_name("rnnt")

    def open(self, streams: int) -> None:
        self._group = self._new_group(streams + 1)
        self._rows = range(1, streams + 1)
        self._fronts = [Front(self._model, self._chunk_frames) for _ in self._rows]
        self._talk = Talk(self._samples, streams)

    def step(self) -> Took:
        features = Clock()
        for stream, front in enumerate(self._fronts):
            while not front.ready:
                front.push(self._talk.next(stream, self._chunk_samples))
        features_s, step = features.cpu, Clock()
        self._run(self._group, self._rows, self._fronts)
        return Took(features_s, step.cpu, step.passed)

    def transcribe(self, clips: list[Samples]) -> list[str]:
        group = self._new_group(len(clips))
        fronts = [Front(self._model, self._chunk_frames) for _ in clips]
        said: list[list[str]] = [[] for _ in clips]
        for front, clip in zip(fronts, clips, strict=True):
            front.push(clip[ALIGN_SAMPLES:])
        while rows := [row for row, front in enumerate(fronts) if front.ready]:
            for row, tokens in zip(rows, self._run(group, rows, [fronts[r] for r in rows]), strict=True):
                said[row] += tokens
        return [pieces_to_text(pieces) for pieces in said]

    def _new_group(self, rows: int) -> Group:
        group = Group("peers", self._model, self._chunk_frames, rows)
        for row in range(rows):
            group.take(row, self._decoder, Slot())
        return group

    def _run(self, group: Group, rows: range | list[int], fronts: list[Front]) -> list[list[str]]:
        work = [Work(front.take(), self._chunk_frames) for front in fronts]
        outcomes = group.run(rows, None, work)
        for outcome in outcomes:
            if outcome.error is not None:
                raise outcome.error
        return [[self._model.bundle.tokens[token.id] for token in outcome.tokens] for outcome in outcomes]
