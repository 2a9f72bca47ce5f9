"""Runs in sherpa-onnx's environment: its own text of every recording in an .npz, one line each.

python tests/proof/sherpa_side.py FOLDER SUFFIX SAMPLES.npz
"""

from __future__ import annotations

import sys

import numpy as np
import sherpa_onnx  # type: ignore[import-not-found]

TAIL = np.zeros(16_000, np.float32)
"""It gives nothing of a last chunk that is not full."""


def main(folder: str, suffix: str, samples: str) -> None:
    recognizer = sherpa_onnx.OnlineRecognizer.from_transducer(
        tokens=f"{folder}/tokens.txt",
        **{part: f"{folder}/{part}{suffix}.onnx" for part in ("encoder", "decoder", "joiner")},
        num_threads=1,
        decoding_method="greedy_search",
    )
    for recording in np.load(samples).values():
        stream = recognizer.create_stream()
        stream.accept_waveform(16_000, recording)
        stream.accept_waveform(16_000, TAIL)
        stream.input_finished()
        while recognizer.is_ready(stream):
            recognizer.decode_stream(stream)
        print(recognizer.get_result(stream).strip())


if __name__ == "__main__":
    main(*sys.argv[1:])
