"""NVIDIA's streaming models by the names that it gives them: what is known of each before it is downloaded.

KNOWN["nvidia/nemotron-speech-streaming-en-0.6b"].languages
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Known:
    """A repository of the hub, as its card describes it.

    Attributes:
        about: what it is, in a few words, and how many parameters it has.
        languages: those that it writes; what the repository's card says where it is empty.
        licence: whose terms apply to its weights.
    """

    about: str
    languages: tuple[str, ...]
    licence: str


CC_BY = "CC-BY-4.0"
OPEN_MODEL = "NVIDIA Open Model License"
EUROPE = "bg cs da de el en es et fi fr hr hu it lt lv mt nl no pl pt ro ru sk sl sv tr uk"
KNOWN = {
    "nvidia/nemotron-speech-streaming-en-0.6b": Known("600 M, punctuation and capitals", ("en",), OPEN_MODEL),
    "nvidia/nemotron-3.5-asr-streaming-0.6b": Known(
        "600 M, 40 locales by language prompt, punctuation and capitals",
        (*EUROPE.split(), "ar", "he", "hi", "ja", "ko", "th", "vi", "zh"),
        "OpenMDW-1.1",
    ),
    "nvidia/stt_en_fastconformer_hybrid_large_streaming_multi": Known("114 M, RNN-T and CTC", ("en",), CC_BY),
    "nvidia/parakeet_realtime_eou_120m-v1": Known("120 M, says when an utterance ends", ("en",), OPEN_MODEL),
    "nvidia/stt_en_fastconformer_hybrid_medium_streaming_80ms": Known("32 M, RNN-T and CTC", ("en",), CC_BY),
    "nvidia/stt_en_fastconformer_hybrid_medium_streaming_80ms_pc": Known(
        "32 M, RNN-T and CTC, punctuation and capitals", ("en",), CC_BY
    ),
    "nvidia/stt_ka_fastconformer_hybrid_transducer_ctc_large_streaming_80ms_pc": Known(
        "115 M, RNN-T and CTC, punctuation and capitals", ("ka",), CC_BY
    ),
}
