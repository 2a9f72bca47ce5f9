"""Random FastConformers of every architecture, the same everywhere: drawn by numpy's RandomState, saved as .nemo.

write_random_nemo(path, toy, KINDS["prompt"])

The first kind is what the toy is not: 128 mels, left context 56, five lookaheads, no biases in the layers, no xscaling,
two predictor layers, a Dropout in the joint (which moves the number in a weight's name). The others are the classes of
NVIDIA's published streaming models.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Kind:
    """One architecture.

    Attributes:
        target: NeMo's class, within nemo.collections.asr.models.
        decoders: its heads.
        pieces: of its vocabulary, `marks` among them; None: the toy's.
        marks: pieces that are no text, at the end of the vocabulary; `mark_bias` is what is added to their logits.
        prompts: languages that it takes, and the size of the one-hot vector.
        memory: scale of the predictor's part in the joint.
        rnnt_blank, ctc_blank: added to the blank's logit: about as many frames are blank as speak.
        layers, d_model, heads, channels, hidden: its size; `feed` is the expansion of the feed-forward layers.
    """

    target: str = "hybrid_rnnt_ctc_bpe_models.EncDecHybridRNNTCTCBPEModel"
    decoders: tuple[str, ...] = ("rnnt", "ctc")
    mels: int = 128
    left: int = 56
    lookaheads: tuple[int, ...] = (13, 6, 3, 1, 0)
    predictor_layers: int = 2
    joint_dropout: float = 0.2
    biases: bool = False
    pieces: int | None = None
    marks: tuple[str, ...] = ()
    mark_bias: tuple[float, ...] = ()
    prompts: dict[str, int] = field(default_factory=dict)
    prompt_size: int = 0
    memory: float = 1.5
    rnnt_blank: float = 11.0
    ctc_blank: float = 6.0
    layers: int = 4
    d_model: int = 128
    heads: int = 4
    channels: int = 32
    hidden: int = 128
    feed: int = 2


NEMOTRON: dict[str, Any] = {"layers": 24, "d_model": 1024, "heads": 8, "channels": 256, "hidden": 640, "feed": 4}
"""The sizes of nvidia/nemotron-speech-streaming-en-0.6b and of its multilingual successor."""
_MULTILINGUAL = Kind(
    target="rnnt_bpe_models_prompt.EncDecRNNTBPEModelWithPrompt",
    decoders=("rnnt",),
    lookaheads=(13, 3, 0),
    pieces=13_000,
    marks=("<en-US>", "<hi-IN>", "<de-DE>"),
    mark_bias=(30.0, 22.0, 28.0),
    memory=8.0,
    prompts={"en-US": 0, "en": 0, "hi-IN": 3, "auto": 7},
    prompt_size=8,
    rnnt_blank=48.0,
)
LARGE: dict[str, Any] = {"layers": 17, "d_model": 512, "heads": 8, "channels": 256, "hidden": 640, "feed": 4}
"""Those of nvidia/stt_en_fastconformer_hybrid_large_streaming_multi and of nvidia/parakeet_realtime_eou_120m-v1."""
KINDS = {
    "hybrid": Kind(),
    "prompt": _MULTILINGUAL,
    "hybrid_prompt": Kind(
        target="hybrid_rnnt_ctc_bpe_models_prompt.EncDecHybridRNNTCTCBPEModelWithPrompt",
        mels=80,
        left=70,
        lookaheads=(13, 0),
        predictor_layers=1,
        prompts={"hi-IN": 1, "en-US": 2},
        prompt_size=128,
        memory=8.0,
        rnnt_blank=18.0,
    ),
    "eou": Kind(
        target="asr_eou_models.EncDecRNNTBPEEOUModel",
        decoders=("rnnt",),
        left=70,
        lookaheads=(1,),
        predictor_layers=1,
        joint_dropout=0.0,
        biases=True,
        pieces=130,
        marks=("<EOU>", "<EOB>"),
        mark_bias=(5.0, 7.5),
        memory=5.0,
        rnnt_blank=12.5,
    ),
    "rnnt": Kind(
        target="rnnt_bpe_models.EncDecRNNTBPEModel",
        decoders=("rnnt",),
        left=70,
        lookaheads=(13, 1),
        pieces=1024,
        rnnt_blank=16.0,
    ),
    "ctc": Kind(
        target="ctc_bpe_models.EncDecCTCModelBPE",
        decoders=("ctc",),
        mels=80,
        left=70,
        lookaheads=(13, 6, 1, 0),
        biases=True,
        pieces=13_000,
        ctc_blank=6.0,
    ),
}

FULL_SIZE = {
    "nemotron_multilingual": replace(_MULTILINGUAL, lookaheads=(13, 3), **NEMOTRON),
    "fastconformer_large": replace(
        Kind(mels=80, left=70, lookaheads=(13, 6, 1, 0), predictor_layers=1, biases=True, pieces=1024), **LARGE
    ),
    "parakeet_eou": replace(KINDS["eou"], pieces=1026, **LARGE),
}
"""The published sizes: for tests/proof/full_size.py alone."""


def write_random_nemo(path: Path, toy: Path, kind: Kind = KINDS["hybrid"], seed: int = 5) -> None:
    """Write the model to `path`; `toy` lends its tokenizer and the rest of its configuration."""
    import torch
    import yaml

    from nemostream.mel import MelFilters
    from nemostream.models.checkpoint import CONFIG, FILTERS, WEIGHTS, WINDOW, write_checkpoint
    from nemostream.models.config import read_config
    from nemostream.models.heads import ConformerModel
    from tests.speech import utterance

    members = _members(toy)
    raw: dict[str, Any] = yaml.safe_load(members.pop(CONFIG))
    members.pop(WEIGHTS)
    _configure(raw, kind)
    if kind.pieces is not None:
        raw["labels"] = _tokenizer(raw, members, kind)
    _heads(raw, kind)
    rng = np.random.RandomState(seed)
    with torch.device("meta"):
        shapes = ConformerModel(read_config(raw, "random")).state_dict()
    state = {name: _draw(name, tuple(value.shape), rng) for name, value in shapes.items()}
    blank = len(raw["labels"])
    # Otherwise every frame would say the same token: kernels that sum to zero see changes, not the level of the mel;
    # attention averages less; the predictor forgets. The layers stay plainly random: sharper ones magnify rounding,
    # NeMo's own too, past any fixed tolerance.
    first = state["encoder.pre_encode.conv.0.weight"]
    first -= first.mean((2, 3), keepdims=True)
    for layer in range(kind.layers):
        state[f"encoder.layers.{layer}.self_attn.linear_out.weight"] *= np.float32(0.5)
    if "rnnt" in kind.decoders:
        state["decoder.prediction.embed.weight"][blank] = 0
        for name in state:
            if "bias_ih" in name:
                state[name][kind.hidden : 2 * kind.hidden] -= np.float32(3)
        state["decoder.prediction.embed.weight"] *= np.float32(4)
        state["joint.enc.weight"] *= np.float32(4)
        state["joint.pred.weight"] *= np.float32(kind.memory)
        state[f"{_out(kind)}.weight"] *= np.float32(4)
    if "ctc" in kind.decoders:
        state[f"{_ctc(kind)}.weight"] *= np.float32(5)
    if kind.prompts:
        state["prompt_kernel.2.weight"] *= np.float32(3)
    state[WINDOW] = np.hanning(400).astype(np.float32)
    state[FILTERS] = _filters(kind.mels)[None]
    # What all frames have in common is taken out of the heads' input; rounded, so that no machine's last bits matter.
    model = ConformerModel(read_config(raw, "random")).eval()
    model.load_state_dict({name: torch.from_numpy(state[name]) for name in shapes}, assign=True)
    mel = torch.from_numpy(MelFilters(state[FILTERS][0], state[WINDOW]).whole(utterance(3)[1]))
    with torch.no_grad():
        encoded, _ = model.encoder(
            mel[None], torch.tensor([len(mel)]), kind.lookaheads[min(1, len(kind.lookaheads) - 1)]
        )
        if kind.prompts:
            prompt = torch.zeros(1, encoded.shape[1], kind.prompt_size)
            encoded = model.prompt_kernel(torch.cat([encoded, prompt], -1))
    common = np.round(encoded[0].mean(0).numpy() * 32) / np.float32(32)
    marks = slice(blank - len(kind.marks), blank)
    if "rnnt" in kind.decoders:
        state["joint.enc.bias"] -= state["joint.enc.weight"] @ common
    if "ctc" in kind.decoders:
        state[f"{_ctc(kind)}.bias"] -= state[f"{_ctc(kind)}.weight"][:, :, 0] @ common
        state[f"{_ctc(kind)}.bias"][blank] += np.float32(kind.ctc_blank)
    if "rnnt" in kind.decoders:
        state[f"{_out(kind)}.bias"][blank] += np.float32(kind.rnnt_blank)
        state[f"{_out(kind)}.bias"][marks] += np.array(kind.mark_bias, np.float32)
    write_checkpoint(path, raw, {name: torch.from_numpy(value) for name, value in state.items()}, members)


def _configure(raw: dict[str, Any], kind: Kind) -> None:
    raw["target"] = f"nemo.collections.asr.models.{kind.target}"
    raw["preprocessor"] |= {"features": kind.mels, "dither": 0.0}
    raw["encoder"] |= {
        "feat_in": kind.mels,
        "n_layers": kind.layers,
        "d_model": kind.d_model,
        "n_heads": kind.heads,
        "ff_expansion_factor": kind.feed,
        "xscaling": False,
        "use_bias": kind.biases,
        "subsampling_conv_channels": kind.channels,
        "att_context_size": [[kind.left, lookahead] for lookahead in kind.lookaheads],
        "att_context_probs": [1 / len(kind.lookaheads)] * len(kind.lookaheads),
        "dropout": 0.1,
        "dropout_pre_encoder": 0.1,
        "dropout_att": 0.1,
    }
    sizes = {"enc_hidden": kind.d_model, "pred_hidden": kind.hidden, "joint_hidden": kind.hidden}
    raw["model_defaults"] |= sizes
    if kind.prompts:
        raw["model_defaults"] |= {
            "initialize_prompt_feature": True,
            "num_prompts": kind.prompt_size,
            "prompt_dictionary": kind.prompts,
        }
    raw["decoder"]["prednet"] |= {"pred_rnn_layers": kind.predictor_layers, "pred_hidden": kind.hidden}
    raw["joint"]["jointnet"] |= {
        "dropout": kind.joint_dropout,
        "joint_hidden": kind.hidden,
        "encoder_hidden": kind.d_model,
        "pred_hidden": kind.hidden,
    }


def _heads(raw: dict[str, Any], kind: Kind) -> None:
    """The vocabulary at its places, and of the toy's two heads those that the kind has."""
    labels = raw["labels"]
    raw["decoder"]["vocab_size"] = raw["joint"]["num_classes"] = len(labels)
    raw["joint"]["vocabulary"] = labels
    ctc = raw["aux_ctc"]["decoder"]
    ctc |= {"feat_in": kind.d_model, "num_classes": len(labels), "vocabulary": labels}
    if kind.decoders == ("ctc",):
        raw["decoder"] = ctc
        raw["decoding"] = {"strategy": "greedy"}
        del raw["joint"], raw["loss"]
    if kind.decoders != ("rnnt", "ctc"):
        del raw["aux_ctc"]


def _out(kind: Kind) -> str:
    return f"joint.joint_net.{2 if kind.joint_dropout else 1}"


def _ctc(kind: Kind) -> str:
    return f"{'ctc_decoder' if 'rnnt' in kind.decoders else 'decoder'}.decoder_layers.0"


def _draw(name: str, shape: tuple[int, ...], rng: np.random.RandomState) -> Floats:
    value = rng.randn(*shape)
    if "norm" in name and name.endswith("weight"):
        return (1 + 0.2 * value).astype(np.float32)
    if len(shape) == 1 or "pos_bias" in name:
        return (0.1 * value).astype(np.float32)
    return (value / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def _filters(mels: int) -> Floats:
    """Triangles, evenly spaced in mel: (mels, 257)."""
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), mels + 2) / 2595) - 1) / 8000 * 256
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bins = np.arange(257)[None]
    up, down = (bins - low) / (middle - low), (high - bins) / (high - middle)
    return (np.maximum(0, np.minimum(up, down)) * 0.02).astype(np.float32)


def _tokenizer(raw: dict[str, Any], members: dict[str, bytes], kind: Kind) -> list[str]:
    """Make the toy's tokenizer one of `kind.pieces`, the last of them `kind.marks`; its pieces."""
    from sentencepiece import sentencepiece_model_pb2

    names = {key: raw["tokenizer"][key].removeprefix("nemo:") for key in ("model_path", "vocab_path")}
    proto = sentencepiece_model_pb2.ModelProto.FromString(members[names["model_path"]])
    assert kind.pieces is not None
    words = [f"\u2581w{number}" for number in range(kind.pieces - len(proto.pieces) - len(kind.marks))]
    for pieces, type_ in ((words, 1), (kind.marks, 4)):  # NORMAL, USER_DEFINED
        for piece in pieces:
            proto.pieces.add(piece=piece, score=-float(len(proto.pieces)), type=type_)
    proto.trainer_spec.vocab_size = len(proto.pieces)
    members[names["model_path"]] = proto.SerializeToString()
    labels = [piece.piece for piece in proto.pieces]
    members[names["vocab_path"]] = "\n".join(labels).encode()
    return labels


def _members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        files = ((info.name.removeprefix("./"), archive.extractfile(info)) for info in archive if info.isreg())
        return {name: file.read() for name, file in files if file}
