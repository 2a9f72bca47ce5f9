"""A sherpa-onnx folder of a streaming NeMo transducer: its files, and the bundle that it stands for.

    graphs = find("sherpa-onnx-nemotron-speech-streaming-en-0.6b-int8", None)
    bundle = describe(graphs, metadata, shapes)        # what the encoder's graph says of itself (encoders/sherpa.py)

encoder*.onnx, decoder*.onnx, joiner*.onnx   NeMo's own export, .int8.onnx where it was quantised
tokens.txt                                   "piece id" lines, the blank last
tokenizer.model                              for keyterms; most folders lack it

Nothing says what the files should hold, so they are checked against one another. The front end is NeMo's default, of
which the folder tells only the number of mel bands.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nemostream.errors import BundleError
from nemostream.models.bundle import MANIFEST, TOKENIZER, Bundle, describe_file
from nemostream.models.info import FORMAT_VERSION, EncoderInfo, MelInfo, ModelInfo, Precision
from nemostream.models.slaney import filters, window

TOKENS = "tokens.txt"
PARTS = ("encoder", "decoder", "joiner")
OVERLAP = 9
"""Mel frames of a window that the chunk before has had: NeMo's pre_encode_cache_size."""
INPUTS = ("audio_signal", "length", "cache_last_channel", "cache_last_time", "cache_last_channel_len")
_BLANKS = ("<blk>", "<blank>")

Shapes = Mapping[str, Sequence[int | str | None]]
"""Of a graph's inputs, by name; a free size is no number."""


@dataclass(frozen=True, slots=True)
class Graphs:
    """The files that one precision takes. `precision` is the encoder's; where the folder lacks a decoder or joiner of
    it, the other one serves."""

    folder: Path
    precision: Precision
    encoder: Path
    decoder: Path
    joiner: Path

    @property
    def files(self) -> list[Path]:
        """All that a model is made of, tensors that lie beside a graph included."""
        beside = [f for part in PARTS for f in self.folder.glob(f"{part}*") if f.is_file() and f.suffix != ".onnx"]
        others = [f for f in (self.folder / TOKENS, self.folder / TOKENIZER) if f.is_file()]
        return [self.encoder, self.decoder, self.joiner, *sorted(beside), *others]


def is_sherpa(path: Path) -> bool:
    """Whether the folder is meant as one of sherpa-onnx, complete or not."""
    if (path / MANIFEST).exists():
        return False
    return (path / TOKENS).is_file() or any(path.glob("joiner*.onnx")) or any(path.glob("decoder*.onnx"))


def find(folder: Path, precision: str | None) -> Graphs:
    """The graphs of that precision; None: int8 if the folder has it.

    Raises:
        BundleError: a file is missing, there are several to choose from, or the folder lacks that precision.
    """
    parts = {part: _by_precision(folder, part) for part in PARTS}
    missing = [f"{part}*.onnx" for part in PARTS if not parts[part]]
    if not (folder / TOKENS).is_file():
        missing.append(TOKENS)
    if missing:
        raise BundleError(f"{folder}: {', '.join(missing)} is missing; copy the whole sherpa-onnx folder.")
    held = parts["encoder"]
    chosen: Precision = "int8" if "int8" in held and precision is None else "fp32"
    if precision is not None and precision in held:
        chosen = "int8" if precision == "int8" else "fp32"
    elif precision is not None:
        raise BundleError(f"{folder} holds {', '.join(held)}, not {precision}; choose that, or get the other files.")
    files = [parts[part].get(chosen) or next(iter(parts[part].values())) for part in PARTS]
    return Graphs(folder, chosen, *files)


def _by_precision(folder: Path, part: str) -> dict[Precision, Path]:
    found: dict[Precision, Path] = {}
    for file in sorted(folder.glob(f"{part}*.onnx")):
        precision: Precision = "int8" if file.name.endswith(".int8.onnx") else "fp32"
        if precision in found:
            raise BundleError(
                f"{folder}: {found[precision].name} and {file.name} could both be the {part}; leave one of them."
            )
        found[precision] = file
    return found


def describe(graphs: Graphs, metadata: Mapping[str, str], shapes: Shapes) -> Bundle:
    """The bundle in memory: its weights are the front end's alone.

    Args:
        metadata, shapes: of the encoder's graph.

    Raises:
        BundleError: that is no streaming transducer of NeMo, one of a kind that does not run here, or the files do not
            belong together.
    """
    facts = _Facts(graphs.encoder, metadata)
    facts.streaming(shapes)
    bands = shapes["audio_signal"][1]
    n_mels = bands if isinstance(bands, int) else facts.number("feat_dim")
    pieces = _tokens(graphs.folder / TOKENS)
    vocab_size = facts.number("vocab_size")
    if len(pieces) != vocab_size + 1 or pieces[-1] not in _BLANKS:
        raise BundleError(
            f"{graphs.folder / TOKENS}: {len(pieces)} pieces, the last {pieces[-1]!r}, do not fit the encoder's "
            f"vocab_size of {vocab_size} and a blank behind; get the tokens.txt of this model."
        )
    chunk_frames = facts.chunk_frames
    files = {file.name: describe_file(file) for file in graphs.files}
    mel = MelInfo(n_mels, n_fft=512, hop=160, win=400, preemphasis=0.97, guard=2.0**-24)
    info = ModelInfo(
        format_version=FORMAT_VERSION,
        name=graphs.folder.resolve().name,
        languages=(),
        chunk_frames=(chunk_frames,),
        default_chunk_frames=chunk_frames,
        mel=mel,
        encoder=EncoderInfo(
            n_layers=facts.number("cache_last_channel_dim1"),
            d_model=facts.number("cache_last_channel_dim3"),
            n_heads=1,  # it does not say, and nobody needs it: this and the channels stay within the graph
            left_context=facts.number("cache_last_channel_dim2"),
            conv_kernel=facts.number("cache_last_time_dim3") + 1,
            subsampling_channels=1,
        ),
        transducer=None,
        vocab_size=vocab_size,
        decoders=("rnnt",),
        default_decoder="rnnt",
        precisions=(graphs.precision,),
        files=files,
    )
    weights = {"mel.filters": filters(n_mels, mel.n_fft), "mel.window": window(mel.win)}
    digest = hashlib.sha256("".join(f"{name} {file.sha256}\n" for name, file in sorted(files.items())).encode())
    return Bundle(graphs.folder, info, pieces[:-1], weights, digest.hexdigest()[:16])


@dataclass(frozen=True, slots=True)
class _Facts:
    """What an encoder's metadata says, and where."""

    path: Path
    metadata: Mapping[str, str]

    def streaming(self, shapes: Shapes) -> None:
        """Raises BundleError unless this is a streaming FastConformer of NeMo as it can run here."""
        metadata = self.metadata
        if "prompt_index" in shapes:
            self._refuse("it takes a language prompt", "use the .nemo of this model")
        if "window_size" not in metadata or tuple(shapes) != INPUTS:
            kind = metadata.get("model_type", "a graph that says nothing of itself")
            self._refuse(
                f"this is no encoder of a streaming NeMo transducer but {kind}", "give one, or run this in sherpa-onnx"
            )
        if (normalize := metadata.get("normalize_type", "")) not in ("", "NA"):
            self._refuse(
                f"normalize_type {normalize!r} needs the whole recording", "use a model that was trained without"
            )
        if (factor := self.number("subsampling_factor")) != 8:
            self._refuse(f"subsampling_factor {factor} is not 8", "use a FastConformer")
        shift, size = self.number("chunk_shift"), self.number("window_size")
        if shift % 8 or size != shift + OVERLAP:
            self._refuse(f"a window_size of {size} with a chunk_shift of {shift} is not NeMo's", "export it again")

    @property
    def chunk_frames(self) -> int:
        return self.number("chunk_shift") // 8

    def number(self, key: str) -> int:
        """A positive number.

        Raises:
            BundleError: there is none.
        """
        value = self.metadata.get(key, "")
        if not (value.isascii() and value.isdigit() and 0 < int(value) <= 1_000_000):
            self._refuse(f"{key} is {value!r} in its metadata, not a count", "export it again")
        return int(value)

    def _refuse(self, what: str, remedy: str) -> None:
        raise BundleError(f"{self.path}: {what}; {remedy}.")


def _tokens(path: Path) -> tuple[str, ...]:
    """All pieces, the blank included."""
    try:
        lines = path.read_bytes().decode().rstrip("\n").split("\n")
        pairs = [line.rstrip("\r").rpartition(" ") for line in lines]
        ids = [int(number) for _, _, number in pairs]
    except ValueError as error:
        raise BundleError(f"{path}: not lines of a piece and its number ({error}); copy it again.") from error
    if ids != list(range(len(ids))):
        raise BundleError(f"{path}: the pieces are not numbered from 0 in their order; copy it again.")
    return tuple(piece for piece, _, _ in pairs)
