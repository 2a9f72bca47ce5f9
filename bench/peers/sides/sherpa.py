"""sherpa-onnx: OnlineRecognizer.decode_streams over streams that are all ready."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sherpa_onnx  # type: ignore[import-not-found]

from bench.peers.sides import SAMPLE_RATE, Clock, Samples, Talk, Task, Took, version

SUFFIX = {"fp32": "", "int8": ".int8", "int8 products": ".products"}


class Sherpa:
    """Side. Its batch is that of the encoder; decoder and joiner run one stream and frame at a time in its C++."""

    def __init__(self, task: Task, talk: Samples) -> None:
        self.versions = {name: version(name) for name in ("sherpa-onnx", "numpy")}
        folder = Path(task.files)
        parts = {
            name: str(folder / f"{name}{SUFFIX[task.precision]}.onnx") for name in ("encoder", "decoder", "joiner")
        }
        self._recognizer = sherpa_onnx.OnlineRecognizer.from_transducer(
            tokens=str(folder / "tokens.txt"),
            **parts,
            num_threads=1,
            sample_rate=SAMPLE_RATE,
            decoding_method="greedy_search",
            provider="cpu",
        )
        self._samples = talk
        self._chunk_samples = task.chunk_samples

    def open(self, streams: int) -> None:
        self._streams: list[Any] = [self._recognizer.create_stream() for _ in range(streams)]
        self._talk = Talk(self._samples, streams)

    def step(self) -> Took:
        features = Clock()
        for i, stream in enumerate(self._streams):
            while not self._recognizer.is_ready(stream):
                stream.accept_waveform(SAMPLE_RATE, self._talk.next(i, self._chunk_samples))
        features_s, step = features.cpu, Clock()
        self._recognizer.decode_streams(self._streams)
        return Took(features_s, step.cpu, step.passed)

    def transcribe(self, clips: list[Samples]) -> list[str]:
        streams = [self._recognizer.create_stream() for _ in clips]
        for stream, clip in zip(streams, clips, strict=True):
            stream.accept_waveform(SAMPLE_RATE, clip)
            stream.input_finished()
        while ready := [stream for stream in streams if self._recognizer.is_ready(stream)]:
            self._recognizer.decode_streams(ready)
        return [self._recognizer.get_result(stream).strip() for stream in streams]
