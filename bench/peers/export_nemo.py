"""Runs in NeMo's environment: a .nemo as sherpa-onnx's fp32 files, one folder for each chunk size.

python -m bench.peers.export_nemo MODEL.nemo OUT 80 160 560 1120

After scripts/nemo/nemotron-speech-streaming-en-0.6b/export_onnx.py of k2-fsa/sherpa-onnx: NeMo's own exporter with
cache support for encoder, decoder and joiner, tokens.txt, and the metadata that sherpa-onnx reads from the encoder.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import nemo.collections.asr as nemo_asr  # type: ignore[import-not-found]
import onnx
import torch


@torch.no_grad()
def main(nemo: Path, out: Path, chunks_ms: list[int]) -> None:
    model = nemo_asr.models.ASRModel.restore_from(str(nemo), map_location="cpu")
    model.eval()
    model.set_export_config({"decoder_type": "rnnt", "cache_support": True})
    for chunk_ms in chunks_ms:
        # Shapes that follow from the lookahead are baked into the graph: each chunk size has an export of its own.
        left, _ = model.encoder.att_context_size
        model.encoder.set_default_att_context_size([left, chunk_ms // 80 - 1])
        folder = out / str(chunk_ms)
        folder.mkdir(parents=True, exist_ok=True)
        for name, part in (("encoder", model.encoder), ("decoder", model.decoder), ("joiner", model.joint)):
            with tempfile.TemporaryDirectory(dir=out) as work:
                # Large models leave a file for each tensor beside the graph.
                part.export(f"{work}/{name}.onnx")
                graph = onnx.load(f"{work}/{name}.onnx")
            if name == "encoder":
                onnx.helper.set_model_props(graph, {key: str(value) for key, value in metadata(model).items()})
            onnx.save(graph, str(folder / f"{name}.onnx"))
        pieces = [*model.joint.vocabulary, "<blk>"]
        (folder / "tokens.txt").write_text("".join(f"{piece} {i}\n" for i, piece in enumerate(pieces)))


def metadata(model: Any) -> dict[str, object]:
    """What sherpa-onnx reads of a NeMo streaming transducer."""
    encoder, streaming = model.encoder, model.encoder.streaming_cfg
    normalize = model.cfg.preprocessor.normalize
    return {
        "vocab_size": model.decoder.vocab_size,
        "window_size": streaming.chunk_size[1] + streaming.pre_encode_cache_size[1],
        "chunk_shift": streaming.chunk_size[1],
        "normalize_type": "" if normalize == "NA" else normalize,
        "cache_last_channel_dim1": len(encoder.layers),
        "cache_last_channel_dim2": streaming.last_channel_cache_size,
        "cache_last_channel_dim3": encoder.d_model,
        "cache_last_time_dim1": len(encoder.layers),
        "cache_last_time_dim2": encoder.d_model,
        "cache_last_time_dim3": encoder.conv_context_size[0],
        "pred_rnn_layers": model.decoder.pred_rnn_layers,
        "pred_hidden": model.decoder.pred_hidden,
        "subsampling_factor": 8,
        "feat_dim": model.cfg.preprocessor.features,
        "model_type": "EncDecHybridRNNTCTCBPEModel",
        "version": "1",
        "model_author": "NeMo",
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [int(chunk) for chunk in sys.argv[3:]])
