"""A loaded model: what streams need of it, and rows of state for its encoder and decoders."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nemostream.encoders import EncoderBackend
from nemostream.errors import BundleError, DeviceError, UnsupportedChunk, UnsupportedLanguage
from nemostream.greedy import CtcDecoder, Decoder, RnntDecoder
from nemostream.keyterms import Keyterms
from nemostream.mel import MelFilters
from nemostream.models.bundle import Bundle, load_bundle
from nemostream.models.sherpa import find, is_sherpa
from nemostream.protocol import AUTO, Endpointing
from nemostream.transcript import Vocabulary

if TYPE_CHECKING:
    from nemostream.group import Group

logger = logging.getLogger("nemostream")

EOU_BLANK_MS = 1600
"""Run of blanks that ends a segment of a model with <EOU>, should it not say so."""

SLOWER = (
    "NeMo's graph computes the keys and values of its whole left context anew with every chunk, and neither its int8 "
    "nor its decoder can run several streams at once"
)


class Model:
    """One bundle in memory, shared by all its streams.

    Attributes:
        precision: of the encoder: "int8" or "fp32", on a device "fp32", "bf16" or "fp16".
        group: makes the rows of a chunk size: a Group, or what takes its arguments and its place.
        slow_groups: that takes seconds.
        mel: the front end.
        vocabulary: the pieces.
        keyterms: makes a decoder's boosting tree of a stream's terms.
        frame_samples: samples per encoder frame.
        flush_samples: silence that a flush runs behind the pending audio (P).
        delay_samples: how long after a sound its token is emitted.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: EncoderBackend,
        precision: str,
        front_end: type[MelFilters] = MelFilters,
        rnnt: Callable[[int], Decoder] | None = None,
        group: Callable[..., Group] | None = None,
    ) -> None:
        """`rnnt`: makes RNN-T decoders of a capacity; None: they run on the bundle's weights. `group`: None: Group."""
        info = bundle.info
        self._rnnt = rnnt or partial(RnntDecoder, bundle.weights, info.max_symbols)
        self.bundle = bundle
        self.precision = precision
        self.backend = backend
        self.group: Callable[..., Group] = group or _group()
        self.slow_groups = group is not None
        self.mel = front_end(
            bundle.weights["mel.filters"],
            bundle.weights["mel.window"],
            info.mel.n_fft,
            info.mel.hop,
            info.mel.preemphasis,
            info.mel.guard,
        )
        self.vocabulary = Vocabulary(bundle.tokens)
        self.keyterms = Keyterms(bundle)
        self.frame_samples = info.frame_samples
        self.flush_samples = info.flush_silence_ms * 16
        self.delay_samples = info.emission_delay_ms * 16

    @classmethod
    def load(
        cls,
        path: Path,
        precision: str | None,
        threads: int | None,
        encoder: str = "onnx",
        device: str = "cpu",
        most: int = 256,
    ) -> Model:
        """Load a bundle folder, or one of sherpa-onnx.

        Args:
            precision: "int8" or "fp32"; None takes the smallest the bundle holds. In torch: "fp32", "bf16" or "fp16";
                None takes "bf16" on a GPU and "fp32" elsewhere.
            threads: of the encoder; None: one per core.
            encoder: "onnx", "torch", "tensorrt", or "null" for one that computes nothing (encoders/null.py).
            device: "cpu", or "cuda" for a GPU, where torch computes unless it is "tensorrt".
            most: rows of a step, where that must be known beforehand.

        Raises:
            BundleError: the folder cannot be used.
            DeviceError: there is no such device or no torch, or it has no such precision.
            EngineFull: the device has no memory for the model.
        """
        if encoder != "null" and (device != "cpu" or encoder in ("torch", "tensorrt")):
            return cls._load_resident(path, precision, device, most if encoder == "tensorrt" else None)
        if is_sherpa(path):
            return cls._load_sherpa(path, precision, threads, encoder)
        bundle = load_bundle(path)
        held = bundle.info.precisions
        chosen = precision or ("int8" if "int8" in held else held[0])
        if chosen not in held:
            raise BundleError(f"{path} holds {', '.join(held)}, not {chosen}; convert the model again with {chosen}")
        if encoder == "null":
            from nemostream.encoders.null import NullBackend, NullFilters

            return cls(bundle, NullBackend(bundle), "null", NullFilters)
        from nemostream.encoders.onnx import OnnxBackend

        return cls(bundle, OnnxBackend(bundle, chosen, threads), chosen)

    @classmethod
    def _load_resident(cls, path: Path, precision: str | None, device: str, most: int | None) -> Model:
        """`most`: in TensorRT, with so many rows in a step at most."""
        chosen = precision or ("fp32" if device == "cpu" else "bf16")
        if is_sherpa(path):
            raise DeviceError(f"{path} is an export for sherpa-onnx, which runs on device cpu alone; give its .nemo")
        require_device(device)
        from nemostream.device.group import DeviceGroup
        from nemostream.encoders.resident import DTYPES
        from nemostream.encoders.tensorrt import tensorrt_if_here
        from nemostream.encoders.torch import TorchBackend

        if chosen not in DTYPES:
            raise DeviceError(f"torch computes in {', '.join(DTYPES)}, not {chosen}; choose one, or device cpu")
        bundle = load_bundle(path)
        backend = None if most is None else tensorrt_if_here(bundle, chosen, device, most)
        return cls(bundle, backend or TorchBackend.load(bundle, chosen, device), chosen, group=DeviceGroup)

    @classmethod
    def _load_sherpa(cls, path: Path, precision: str | None, threads: int | None, encoder: str) -> Model:
        from nemostream.encoders.sherpa import SherpaBackend

        backend = SherpaBackend(find(path, precision), threads)
        bundle = backend.bundle
        logger.warning("%s is an export for sherpa-onnx; the .nemo of the same model is faster: %s", path, SLOWER)
        if encoder == "null":
            from nemostream.encoders.null import NullBackend, NullFilters

            return cls(bundle, NullBackend(bundle), "null", NullFilters, backend.decoder)
        return cls(bundle, backend, bundle.info.precisions[0], rnnt=backend.decoder)

    @property
    def chunks_ms(self) -> list[int]:
        """The chunk sizes on offer."""
        return [t * self.frame_ms for t in self.bundle.info.chunk_frames]

    @property
    def frame_ms(self) -> int:
        return self.frame_samples // 16

    def language(self, wanted: str | None) -> str:
        """The language of a stream; None gives the bundle's first. Regions do not matter: en-US is en.

        Raises:
            UnsupportedLanguage: the model does not speak it.
        """
        spoken = tuple(self.bundle.info.prompts) or self.bundle.info.languages
        if AUTO in spoken and wanted is None:
            return AUTO
        if wanted is None or not spoken:
            return wanted or next(iter(spoken), "")
        if _base(wanted) not in map(_base, spoken):
            raise UnsupportedLanguage(f"{self.bundle.info.name} speaks {', '.join(spoken)}, not {wanted}")
        return wanted

    def prompt(self, wanted: str | None) -> int:
        """The place of a stream's language in the encoder's prompt; 0 if it takes none. A region that the model does
        not know counts as the first one of that language.

        Raises:
            UnsupportedLanguage: the model does not speak it.
        """
        language, prompts = self.language(wanted), self.bundle.info.prompts
        if not prompts:
            return 0
        alike = [code for code in prompts if code.lower() == language.lower()]
        alike += [code for code in prompts if _base(code) == _base(language)]
        return prompts[alike[0]]

    @property
    def endpointing(self) -> Endpointing:
        """When a segment ends by itself, unless a stream asks otherwise. A model that says when an utterance ends is
        not interrupted by every pause."""
        return Endpointing(blank_ms=EOU_BLANK_MS) if self.vocabulary.ends else Endpointing()

    def chunk_frames(self, chunk_ms: int | None) -> int:
        """Encoder frames of a chunk; None gives the bundle's default.

        Raises:
            UnsupportedChunk: the bundle does not offer it.
        """
        if chunk_ms is None:
            return self.bundle.info.default_chunk_frames
        if chunk_ms not in self.chunks_ms:
            offered = ", ".join(str(c) for c in sorted(self.chunks_ms))
            raise UnsupportedChunk(f"{self.bundle.info.name} has no chunk of {chunk_ms} ms; it offers {offered}")
        return chunk_ms // self.frame_ms

    def spare_frames(self, chunk_frames: int) -> int:
        """Frames that the uncommitted steps of a flush write at most."""
        return self.bundle.info.spare_frames(chunk_frames)

    def decoder_name(self, wanted: str | None) -> str:
        """The decoder to use.

        Raises:
            BundleError: the bundle has none of that name.
        """
        info = self.bundle.info
        name = wanted or info.default_decoder
        if name not in info.decoders:
            raise BundleError(f"{info.name} decodes with {' or '.join(info.decoders)}, not {name}")
        return name

    def decoder(self, name: str, capacity: int) -> Decoder:
        """State rows for one of the bundle's decoders."""
        if name == "rnnt":
            return self._rnnt(capacity)
        return CtcDecoder(self.bundle.weights, capacity)


def require_device(device: str) -> None:
    """Raises DeviceError unless torch is installed and finds `device`: "cpu", or "cuda" for a GPU."""
    try:
        from nemostream.encoders.resident import find_device
    except ImportError as error:
        raise DeviceError(
            f"this (device {device}) needs torch, which is not installed ({error}); run pip install "
            "'livekit-plugins-nemo[convert]', or use device cpu with onnxruntime"
        ) from error
    find_device(device)


def _group() -> Callable[..., Group]:
    from nemostream.group import Group  # which knows models

    return Group


def _base(code: str) -> str:
    """The language without its region."""
    return code.partition("-")[0].lower()
