"""A .nemo of a published shape with random weights: as costly as the real one, and it says something.

python -m bench.random_model fastconformer-114m OUT.nemo

The text means nothing. Weights are drawn so that activations stay finite and the encoder's output follows the audio;
the blank's bias is found by decoding speech, so that decoding costs what it costs behind a trained encoder.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.random_weights import draw_weights, triangles
from nemostream.models.checkpoint import FILTERS, WINDOW, write_checkpoint
from nemostream.models.config import read_config

if TYPE_CHECKING:
    from torch import Tensor

TEMPLATE = Path(__file__).resolve().parent.parent / "plugin" / "train" / "start.nemo"


@dataclass(frozen=True, slots=True)
class Shape:
    """What sets one model's step apart from another's; see models/config.py. `vocabulary` without `specials`."""

    layers: int
    d_model: int
    heads: int
    channels: int
    mels: int
    lookaheads: tuple[int, ...]
    pred_hidden: int
    pred_layers: int
    vocabulary: int
    target: str
    bias: bool = True
    ctc: bool = False
    specials: tuple[str, ...] = ()


_MODELS = "nemo.collections.asr.models."
_HYBRID = f"{_MODELS}hybrid_rnnt_ctc_bpe_models.EncDecHybridRNNTCTCBPEModel"
SHAPES = {
    "fastconformer-114m": Shape(17, 512, 8, 256, 80, (13, 6, 1, 0), 640, 1, 1024, _HYBRID, ctc=True),
    "nemotron-0.6b": Shape(
        24, 1024, 8, 256, 128, (13, 6, 1, 0), 640, 2, 1024, f"{_MODELS}rnnt_bpe_models.EncDecRNNTBPEModel", bias=False
    ),
    "eou-120m": Shape(
        17,
        512,
        8,
        256,
        128,
        (1,),
        640,
        1,
        1024,
        f"{_MODELS}asr_eou_models.EncDecRNNTBPEEOUModel",
        specials=("<EOU>", "<EOB>"),
    ),
    "embedded": Shape(8, 144, 4, 64, 80, (13, 6, 1, 0), 160, 1, 256, _HYBRID, ctc=True),
}
LEFT_CONTEXT, CONV_KERNEL = 70, 9


def write(shape: str, path: Path, seed: int = 0) -> Path:
    """Write the model to `path`, whole or not at all; `shape` is one of SHAPES. Returns `path`.

    Raises:
        ValueError: no such shape.
    """
    if shape not in SHAPES:
        raise ValueError(f"no shape {shape!r}; choose one of {', '.join(SHAPES)}.")
    from train.save import Template  # reads yaml, which is not everywhere where shapes are wanted

    template = Template.read(TEMPLATE)
    wanted = SHAPES[shape]
    vocabulary, members = _tokenizer(template.tokenizer, wanted)
    raw = _config(template.raw, wanted, vocabulary, members)
    front: dict[str, Tensor] = {WINDOW: template.checkpoint.state[WINDOW], FILTERS: triangles(wanted.mels)}
    state = draw_weights(read_config(raw, str(path)), front, np.random.default_rng(seed))
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    write_checkpoint(partial, raw, state, members)
    os.replace(partial, path)
    return path


def _config(template: dict[str, Any], shape: Shape, vocabulary: list[str], members: dict[str, bytes]) -> dict[str, Any]:
    """NeMo's model_config of `shape`."""
    raw = copy.deepcopy(template)
    size = len(vocabulary)
    model, spe, text = members
    raw["target"], raw["labels"] = shape.target, vocabulary
    raw["tokenizer"] |= {"model_path": f"nemo:{model}", "spe_tokenizer_vocab": f"nemo:{spe}"}
    raw["tokenizer"]["vocab_path"] = f"nemo:{text}"
    raw["model_defaults"] = {
        "enc_hidden": shape.d_model,
        "pred_hidden": shape.pred_hidden,
        "joint_hidden": shape.pred_hidden,
    }
    raw["preprocessor"] |= {"features": shape.mels, "dither": 0.0}
    raw["encoder"] |= {
        "feat_in": shape.mels,
        "n_layers": shape.layers,
        "d_model": shape.d_model,
        "n_heads": shape.heads,
        "use_bias": shape.bias,
        "xscaling": shape.bias,  # the models without biases are also those that scale nothing
        "subsampling_conv_channels": shape.channels,
        "att_context_size": [[LEFT_CONTEXT, lookahead] for lookahead in shape.lookaheads],
        "att_context_probs": [1 / len(shape.lookaheads)] * len(shape.lookaheads),
        "conv_kernel_size": CONV_KERNEL,
    }
    raw["decoder"]["vocab_size"] = size
    raw["decoder"]["prednet"] |= {"pred_hidden": shape.pred_hidden, "pred_rnn_layers": shape.pred_layers}
    raw["joint"] |= {"num_classes": size, "vocabulary": vocabulary}
    raw["joint"]["jointnet"] |= {
        "encoder_hidden": shape.d_model,
        "pred_hidden": shape.pred_hidden,
        "joint_hidden": shape.pred_hidden,
    }
    if shape.ctc:
        raw["aux_ctc"]["decoder"] |= {"feat_in": shape.d_model, "num_classes": size, "vocabulary": vocabulary}
    else:
        del raw["aux_ctc"]
    return raw


def _tokenizer(model: bytes, shape: Shape) -> tuple[list[str], dict[str, bytes]]:
    """The template's SentencePiece model, grown to `shape`'s vocabulary by joining its pieces; and the three files that
    NeMo wants of it, by name."""
    from sentencepiece import sentencepiece_model_pb2

    sentencepiece: Any = sentencepiece_model_pb2  # made at import, so no checker knows what is in it
    proto = sentencepiece.ModelProto()
    proto.ParseFromString(model)
    known = {piece.piece for piece in proto.pieces}
    old = [piece.piece for piece in proto.pieces][1:]
    endings = [piece for piece in old if not piece.startswith("▁") and len(piece) > 1]
    joined = (start + end for end in endings for start in old)
    while len(proto.pieces) < shape.vocabulary:
        if (piece := next(joined)) not in known:
            known.add(piece)
            proto.pieces.add(piece=piece, score=proto.pieces[-1].score - 1)
    for special in shape.specials:
        proto.pieces.add(piece=special, score=0.0, type=sentencepiece.ModelProto.SentencePiece.USER_DEFINED)
    proto.trainer_spec.vocab_size = len(proto.pieces)
    vocabulary = [piece.piece for piece in proto.pieces]
    spe = "".join(f"{piece.piece}\t{piece.score:g}\n" for piece in proto.pieces)
    text = "".join(f"{piece[1:] or piece}\n" if piece[0] == "▁" else f"##{piece}\n" for piece in vocabulary[1:])
    files = {
        "tokenizer.model": proto.SerializeToString(),
        "tokenizer.vocab": spe.encode(),
        "vocab.txt": text.encode(),
    }
    named = {f"{hashlib.md5(content).hexdigest()}_{name}": content for name, content in files.items()}
    return vocabulary, named


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(write(options.shape, options.out, options.seed))


if __name__ == "__main__":
    main()
