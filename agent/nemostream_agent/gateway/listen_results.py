"""The parts of Deepgram's answers that live and recorded audio have alike."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from nemostream.protocol import SAMPLE_RATE, Word

_EDGES = re.compile(r"^\W+|\W+$")


def seconds(samples: int) -> float:
    return samples / SAMPLE_RATE


def alternative(text: str, words: Sequence[Word], language: str | None = None) -> dict[str, Any]:
    """`confidence` is the mean of the words', 0 without any."""
    found = {
        "transcript": text,
        "confidence": round(sum(word.confidence for word in words) / len(words), 6) if words else 0.0,
        "words": [_word(word) for word in words],
    }
    return found if language is None else {**found, "languages": [language]}


def _word(word: Word) -> dict[str, Any]:
    return {
        "word": _EDGES.sub("", word.text).lower() or word.text,
        "start": seconds(word.start_sample),
        "end": seconds(word.end_sample),
        "confidence": round(word.confidence, 6),
        "punctuated_word": word.text,
    }


def model_uuid(bundle: str) -> str:
    """The same for the same model, everywhere."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"nemostream:{bundle}"))


def model_info(name: str | None, bundle: str) -> dict[str, str]:
    """`name`: what the client asked for."""
    return {"name": name or "default", "version": bundle, "arch": "nemo"}


def metadata(
    request_id: str, model: str | None, bundle: str, sha256: str, created: float, duration: float, channels: int
) -> dict[str, Any]:
    """Of a whole stream or file. `model`: what was asked for, `bundle`: what it is; `created`: seconds since the epoch;
    `duration`: of audio, in seconds."""
    began = datetime.fromtimestamp(created, UTC).isoformat(timespec="milliseconds")
    return {
        "transaction_key": "deprecated",
        "request_id": request_id,
        "sha256": sha256,
        "created": began.replace("+00:00", "Z"),
        "duration": duration,
        "channels": channels,
        "models": [model_uuid(bundle)],
        "model_info": {model_uuid(bundle): model_info(model, bundle)},
    }
