"""The recipe's small run from nothing: 24 sentences of one voice, stopped in the middle, and heard by the engine."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from tests.train import heard

SOURCES = ["plugin/train/*.py", "plugin/nemostream/models/*.py", "tests/train/heard.py", "tests/train/speech/*"]
CLIPS = 24


def run() -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        began = time.monotonic()
        heard.small_run(out, "--steps", "120")
        heard.small_run(out)
        bundle = heard.convert(out / "last.nemo", Path(folder) / "bundle")
        seconds = time.monotonic() - began
        texts, sounds = heard.clips(CLIPS)
        offline = heard.offline(out / "last.nemo", sounds)
        fp32, int8 = (heard.streamed(bundle, precision, sounds) for precision in ("fp32", "int8"))
        ctc = heard.losses(out, "ctc")
    rates = {name: heard.word_error_rate(texts, found) for name, found in (("fp32", fp32), ("int8", int8))}
    assert fp32 == offline, "a stream has other tokens than the whole sound"
    assert max(rates.values()) <= 0.15, rates
    return {"seconds": round(seconds), "ctc": [round(ctc[0], 3), round(ctc[-1], 3)], "wer": rates, "clips": CLIPS}
