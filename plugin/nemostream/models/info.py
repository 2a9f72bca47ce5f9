"""What a bundle's model.json says: the shapes and settings of a model, as msgspec reads them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec

FORMAT_VERSION = 1

Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Millis = Annotated[int, msgspec.Meta(ge=0, le=10_000)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
Decoder = Literal["rnnt", "ctc"]
Precision = Literal["fp32", "int8"]


@dataclass(frozen=True, slots=True)
class MelInfo:
    """The log-mel front end: `hop` and `win` in samples at 16 kHz; log(power + guard)."""

    n_mels: Count
    n_fft: Count
    hop: Count
    win: Count
    preemphasis: float
    guard: Positive


@dataclass(frozen=True, slots=True)
class EncoderInfo:
    """The encoder's shape; `left_context` in encoder frames."""

    n_layers: Count
    d_model: Count
    n_heads: Count
    left_context: Count
    conv_kernel: Count
    subsampling_channels: Count

    @property
    def d_head(self) -> int:
        return self.d_model // self.n_heads


@dataclass(frozen=True, slots=True)
class TransducerInfo:
    """Predictor (`pred_layers` of `pred_hidden`) and joint network."""

    pred_hidden: Count
    pred_layers: Count
    joint_hidden: Count


@dataclass(frozen=True, slots=True)
class FileInfo:
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    bytes: Annotated[int, msgspec.Meta(ge=0)]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """model.json.

    Attributes:
        chunk_frames: T of every chunk size on offer, ascending, in encoder frames of `frame_samples`.
        vocab_size: pieces without the blank.
        max_symbols: tokens that one frame may emit at most.
        flush_silence_ms: silence that a flush runs behind the pending audio (P).
        emission_delay_ms: how long after a sound its token is emitted.
        prompts: languages that the encoder takes as a prompt, each with its number; none: it takes no prompt.
        files: every file of the bundle but model.json itself.
    """

    format_version: int
    name: str
    languages: tuple[str, ...]
    chunk_frames: tuple[Count, ...]
    default_chunk_frames: Count
    mel: MelInfo
    encoder: EncoderInfo
    transducer: TransducerInfo | None
    vocab_size: Count
    decoders: tuple[Decoder, ...]
    default_decoder: Decoder
    precisions: tuple[Precision, ...]
    files: dict[str, FileInfo]
    frame_samples: Count = 1280
    max_symbols: Count = 10
    flush_silence_ms: Millis = 320
    emission_delay_ms: Millis = 0
    prompts: dict[str, Annotated[int, msgspec.Meta(ge=0, le=100_000)]] = field(default_factory=dict)

    def spare_frames(self, chunk_frames: int) -> int:
        """Frames that the uncommitted steps of a flush write at most: all but the last of ceil((chunk + P) / chunk)."""
        chunk = chunk_frames * self.frame_samples
        return -(-self.flush_silence_ms * 16 // chunk) * chunk_frames

    @property
    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of everything in weights.npz; products are x @ W, so matrices are (in, out)."""
        shapes: dict[str, tuple[int, ...]] = {
            "mel.window": (self.mel.win,),
            "mel.filters": (self.mel.n_mels, self.mel.n_fft // 2 + 1),
        }
        d, symbols = self.encoder.d_model, self.vocab_size + 1
        if "ctc" in self.decoders:
            shapes |= {"ctc.weight": (d, symbols), "ctc.bias": (symbols,)}
        if self.transducer and "rnnt" in self.decoders:
            p, j = self.transducer.pred_hidden, self.transducer.joint_hidden
            shapes |= {"rnnt.embedding": (symbols, p)}
            for layer in range(self.transducer.pred_layers):
                shapes |= {f"rnnt.lstm.{layer}.{part}": (p, 4 * p) for part in ("w_ih", "w_hh")}
                shapes |= {f"rnnt.lstm.{layer}.bias": (4 * p,)}
            for part, inputs, outputs in (("enc", d, j), ("pred", p, j), ("out", j, symbols)):
                shapes |= {f"joint.{part}.weight": (inputs, outputs), f"joint.{part}.bias": (outputs,)}
        return shapes

    def contradictions(self) -> str | None:
        """What in this description cannot be true at once, as half a sentence; None if nothing."""
        encoder, mel = self.encoder, self.mel
        if self.format_version != FORMAT_VERSION:
            return f"format_version is {self.format_version}, this version reads {FORMAT_VERSION}"
        if not self.chunk_frames or max(self.chunk_frames) > encoder.left_context:
            return f"chunk_frames {list(self.chunk_frames)} do not fit left_context {encoder.left_context}"
        if self.default_chunk_frames not in self.chunk_frames:
            return f"default_chunk_frames {self.default_chunk_frames} is not in chunk_frames"
        if not self.decoders or self.default_decoder not in self.decoders:
            return f"default_decoder {self.default_decoder} is not in decoders"
        if "rnnt" in self.decoders and self.transducer is None:
            return "decoders has rnnt but transducer is missing"
        if not self.precisions:
            return "precisions is empty"
        if encoder.d_model % encoder.n_heads:
            return f"d_model {encoder.d_model} is not a multiple of n_heads {encoder.n_heads}"
        if mel.win > mel.n_fft or self.frame_samples != 8 * mel.hop or not 0 <= mel.preemphasis < 1:
            return "mel and frame_samples do not fit together"
        return None
