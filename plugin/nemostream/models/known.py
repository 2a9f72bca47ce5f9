"""NVIDIA's streaming models by the names that it gives them: what is known of each before it is downloaded.

KNOWN["nvidia/nemotron-speech-streaming-en-0.6b"].languages
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Known:
    """A repository of the hub.

    Attributes:
        about: what it is, in a few words.
        languages: those that it writes; what the repository's card says where it is empty.
        licence: whose terms apply to its weights.
    """

    about: str
    languages: tuple[str, ...]
    licence: str


OPEN_MODEL = "NVIDIA Open Model License"
KNOWN = {
    "nvidia/nemotron-speech-streaming-en-0.6b": Known("0.6 B, punctuation and capitals", ("en",), OPEN_MODEL),
    "nvidia/stt_en_fastconformer_hybrid_large_streaming_multi": Known("114 M, RNN-T and CTC", ("en",), "CC-BY-4.0"),
    "nvidia/parakeet_realtime_eou_120m-v1": Known("120 M, says when an utterance ends", ("en",), OPEN_MODEL),
}
