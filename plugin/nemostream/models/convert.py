"""From a .nemo to a bundle: nemostream convert.

    bundle = convert("model.nemo", "bundles/model")

The folder appears under its name only when it is complete and verified: it is built beside, then renamed.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from nemostream.encoders import Floats
from nemostream.errors import BundleError, CheckpointError
from nemostream.models.bundle import (
    MANIFEST,
    TOKENIZER,
    TOKENS,
    WEIGHTS,
    Bundle,
    describe_file,
    encoder_file,
    load_bundle,
)
from nemostream.models.checkpoint import read_checkpoint
from nemostream.models.config import ConformerConfig
from nemostream.models.decoder_weights import decoder_weights
from nemostream.models.info import FORMAT_VERSION, Decoder, EncoderInfo, MelInfo, ModelInfo, Precision, TransducerInfo

if TYPE_CHECKING:
    import onnx

    from nemostream.models.step import StreamingStep

Progress = Callable[[str], None]
PREFERRED_CHUNK_FRAMES = 7
"""The default chunk is the longest on offer up to 560 ms: most of the long context's accuracy, text twice a second."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a bundle says of a model and its checkpoint does not.

    Attributes:
        languages: those that it writes; none: those that it can be asked for, else English.
        decoder: the default one; None: RNN-T where there is one.
        flush_silence_ms: silence that a flush runs behind the pending audio (P).
        emission_delay_ms: how long after a sound its token comes out, as measured on speech.
    """

    languages: tuple[str, ...] = ()
    decoder: Decoder | None = None
    flush_silence_ms: int = 320
    emission_delay_ms: int = 0


def convert(
    nemo_path: str | Path,
    out_dir: str | Path,
    *,
    name: str | None = None,
    precisions: Sequence[Precision] = ("fp32", "int8"),
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Convert a NeMo checkpoint.

    Args:
        out_dir: the folder to make; it must not exist, or be empty.
        name: the model's name; the file's stem if None.
        settings: what the checkpoint does not say.
        progress: called with one short line per stage.

    Raises:
        CheckpointError: the .nemo cannot be used, or torch or onnx is not installed.
        BundleError: `out_dir` is taken, or the result fails its checks.
    """
    nemo_path, out_dir = Path(nemo_path), Path(out_dir)
    say = progress or (lambda line: None)
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise BundleError(f"{out_dir}: exists already; remove it, or give another folder.")
    if not precisions or set(precisions) - {"fp32", "int8"}:
        asked = ", ".join(precisions) or "none"
        raise BundleError(f"{out_dir}: cannot make precisions {asked}; choose fp32, int8 or both.")
    say(f"reading {nemo_path.name}")
    source = _read(nemo_path)
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out_dir.name}.", dir=out_dir.parent))
    try:
        _export(source, work, precisions, say)
        say("writing decoder weights")
        np.savez(work / WEIGHTS, allow_pickle=False, **source.weights)
        (work / TOKENS).write_bytes(msgspec.json.encode(source.config.tokens))
        if source.tokenizer is not None:
            (work / TOKENIZER).write_bytes(source.tokenizer)
        info = _info(source.config, name or nemo_path.stem, precisions, settings or Settings())
        for file in work.iterdir():
            file.chmod(0o644)  # onnx makes the tensors of a large graph readable by nobody else
        files = {file.name: describe_file(file) for file in sorted(work.iterdir())}
        manifest = msgspec.json.encode(replace(info, files=files))
        (work / MANIFEST).write_bytes(msgspec.json.format(manifest, indent=1))
        say("verifying")
        bundle = load_bundle(work)
        work.chmod(0o755)
        work.rename(out_dir)
    except OSError as error:
        raise BundleError(
            f"{out_dir}: cannot be written ({error.strerror}); free space or give another folder."
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return replace(bundle, path=out_dir)


@dataclass(slots=True)
class _Source:
    """What a bundle is made of. Of a large checkpoint no more than this stays in memory: `step` is a copy."""

    path: Path
    config: ConformerConfig
    tokenizer: bytes | None
    weights: dict[str, Floats]
    step: StreamingStep | None


def _read(path: Path) -> _Source:
    from nemostream.models.step import StreamingStep

    checkpoint = read_checkpoint(path)
    model = checkpoint.model(share=True)
    step = StreamingStep(model.encoder, getattr(model, "prompt_kernel", None)).eval()
    return _Source(path, checkpoint.config, checkpoint.tokenizer, decoder_weights(checkpoint, model), step)


def _export(source: _Source, work: Path, precisions: Sequence[Precision], say: Progress) -> None:
    try:
        import onnx
    except ImportError as error:
        raise CheckpointError(
            f"{source.path}: converting needs onnx; run pip install 'livekit-plugins-nemo[convert]'."
        ) from error
    from nemostream.models.export import export_step
    from nemostream.models.quantize import quantize_rows

    say("exporting the encoder")
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        # Above 2 GB torch leaves the tensors as loose files beside the graph; onnx gathers them again.
        raw = Path(scratch) / "step.onnx"
        assert source.step is not None
        export_step(source.step, source.config.encoder, source.config.mel, raw)
        source.step = None  # the graphs are as large again
        if "fp32" in precisions:
            _save(onnx.load(raw), work / encoder_file("fp32"))
        if "int8" in precisions:
            say("quantizing to int8")
            graph = onnx.load(raw)
            quantize_rows(graph)
            _save(graph, work / encoder_file("int8"))
            refuse_fused(work / encoder_file("int8"))


def _save(graph: onnx.ModelProto, path: Path) -> None:
    import onnx

    large = sum(len(tensor.raw_data) for tensor in graph.graph.initializer) > 1_900_000_000  # protobuf ends at 2 GB
    onnx.save(graph, path, save_as_external_data=large, location=f"{path.name}.data" if large else None)


def refuse_fused(path: Path) -> None:
    """Optimize the graph as a session does and look for a product that would mix the rows' scales (quantize.FUSED).

    Raises:
        BundleError: onnxruntime fused it.
    """
    import onnx

    from nemostream.models.quantize import FUSED, ONE
    from nemostream.ort import onnxruntime

    with tempfile.TemporaryDirectory() as scratch:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = str(Path(scratch) / "optimized.onnx")
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        nodes = onnx.load(options.optimized_model_filepath, load_external_data=False).graph.node
    if any(node.op_type == FUSED and node.input[2] != ONE for node in nodes):
        raise BundleError(
            f"{path.name}: this onnxruntime joins the scales of int8 rows ({FUSED}), results would be "
            "wrong; install another onnxruntime, or convert with fp32 alone."
        )


def _info(config: ConformerConfig, name: str, precisions: Sequence[Precision], settings: Settings) -> ModelInfo:
    encoder, mel, transducer = config.encoder, config.mel, config.transducer
    chunks = encoder.chunk_frames
    decoders: list[Decoder] = ["rnnt"] if transducer else []
    if config.ctc_prefix:
        decoders.append("ctc")
    if settings.decoder and settings.decoder not in decoders:
        raise BundleError(f"{name}: the checkpoint has no {settings.decoder} decoder, only {', '.join(decoders)}.")
    short = [frames for frames in chunks if frames <= PREFERRED_CHUNK_FRAMES]
    return ModelInfo(
        format_version=FORMAT_VERSION,
        name=name,
        languages=settings.languages or _languages(config),
        chunk_frames=chunks,
        default_chunk_frames=max(short) if short else min(chunks),
        mel=MelInfo(mel.n_mels, mel.n_fft, mel.hop, mel.win, mel.preemphasis, mel.guard),
        encoder=EncoderInfo(
            encoder.n_layers,
            encoder.d_model,
            encoder.n_heads,
            encoder.left_context,
            encoder.conv_kernel,
            encoder.subsampling_channels,
        ),
        transducer=TransducerInfo(transducer.pred_hidden, transducer.pred_layers, transducer.joint_hidden)
        if transducer
        else None,
        vocab_size=len(config.tokens),
        decoders=tuple(decoders),
        default_decoder=settings.decoder or decoders[0],
        precisions=tuple(dict.fromkeys(precisions)),
        files={},
        max_symbols=transducer.max_symbols if transducer else 10,
        flush_silence_ms=settings.flush_silence_ms,
        emission_delay_ms=settings.emission_delay_ms,
        prompts=dict(config.prompt.index) if config.prompt else {},
    )


def _languages(config: ConformerConfig) -> tuple[str, ...]:
    """Those that the model can be asked for; English where it cannot be asked."""
    return tuple(config.prompt.index) if config.prompt else ("en",)
