"""The engine's step (group.py): encoder through onnxruntime, greedy decoding, rows gathered and written back."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from bench.peers.sides import ALIGN_SAMPLES, Clock, Samples, Talk, Task, Took, pieces_to_text, version
from nemostream.encoders import Floats, Indices
from nemostream.errors import StepFailed
from nemostream.feed import Feed
from nemostream.group import Group
from nemostream.inbox import Options
from nemostream.mel import MelFilters
from nemostream.model import Model
from nemostream.protocol import NO_ENDPOINT
from nemostream.scheduler import Slot
from nemostream.work import Batch, Work


class TimedFilters(MelFilters):
    """The front end of the engine's step, which says how long it took: the others' steps begin behind theirs."""

    cpu = passed = 0.0

    def chunks(self, windows: Floats, rows: Indices, samples: int) -> Floats:
        clock = Clock()
        mel = super().chunks(windows, rows, samples)
        TimedFilters.cpu, TimedFilters.passed = clock.cpu, clock.passed
        return mel


class Ours:
    """Side. The rows that are ready are not the first ones, as for most steps of an engine with many streams: so every
    step gathers their state into one block, and writes each row's share of the result back."""

    def __init__(self, task: Task, talk: Samples) -> None:
        self.versions = {name: version(name) for name in ("livekit-plugins-nemo", "onnxruntime", "numpy")}
        self._model = Model.load(Path(task.files), task.precision, 1)
        mel = self._model.mel
        self._model.mel = TimedFilters(**{field.name: getattr(mel, field.name) for field in dataclasses.fields(mel)})
        self._chunk_frames = task.chunk_ms // self._model.frame_ms
        self._chunk_samples = task.chunk_samples
        self._samples = talk
        self._decoder = self._model.decoder_name("rnnt")

    def open(self, streams: int) -> None:
        self._group = self._new_group(streams + 1)
        self._rows = range(1, streams + 1)
        self._feeds = [self._new_feed() for _ in self._rows]
        self._begun = False
        self._talk = Talk(self._samples, streams)

    def step(self) -> Took:
        for stream, feed in enumerate(self._feeds):
            while not feed.ready:
                feed.push(self._talk.next(stream, self._chunk_samples))
        step = Clock()
        self._run(self._group, self._rows, self._feeds, not self._begun)
        self._begun = True
        return Took(TimedFilters.cpu, step.cpu - TimedFilters.cpu, step.passed - TimedFilters.passed)

    def transcribe(self, clips: list[Samples]) -> list[str]:
        group = self._new_group(len(clips))
        feeds = [self._new_feed() for _ in clips]
        said: list[list[str]] = [[] for _ in clips]
        for feed, clip in zip(feeds, clips, strict=True):
            feed.push(clip[ALIGN_SAMPLES:])
        first = True
        while rows := [row for row, feed in enumerate(feeds) if feed.ready]:
            for row, tokens in zip(rows, self._run(group, rows, [feeds[r] for r in rows], first), strict=True):
                said[row] += tokens
            first = False
        return [pieces_to_text(pieces) for pieces in said]

    def _new_group(self, rows: int) -> Group:
        group = Group("peers", self._model, self._chunk_frames, rows)
        for row in range(rows):
            group.take(row, self._decoder, Slot())
        return group

    def _new_feed(self) -> Feed:
        return Feed(self._model.mel, self._chunk_frames, Options(NO_ENDPOINT))

    def _run(self, group: Group, rows: range | list[int], feeds: list[Feed], first: bool) -> list[list[str]]:
        windows = [window for feed in feeds if (window := feed.chunk()) is not None]
        batch = Batch.of(rows, [Work(window, self._chunk_frames, first) for window in windows])
        outcomes = group.run(batch, None)
        for feed in feeds:
            feed.take_chunk()
        said: list[list[str]] = []
        for outcome in outcomes:
            if isinstance(outcome, StepFailed):
                raise outcome
            said.append([self._model.bundle.tokens[token.id] for token in outcome])
        return said
