"""A random FastConformer of 4 layers of 128, the same everywhere: drawn by numpy's frozen RandomState, saved as .nemo.

It is what the toy is not, after nemotron-3.5: 128 mels, left context 56, five lookaheads, no biases in the layers, no
xscaling, two predictor layers, a Dropout in the joint (which moves the number in a weight's name).
"""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import numpy as np

MELS, CHANNELS = 128, 32
LOOKAHEADS = (13, 6, 3, 1, 0)
RNNT_BLANK, CTC_BLANK = 11.0, 6.0
"""Added to the blank's logit: about as many frames are blank as speak."""


def write_random_nemo(path: Path, toy: Path, seed: int = 5) -> None:
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
    raw["preprocessor"] |= {"features": MELS, "dither": 0.0}
    raw["encoder"] |= {
        "feat_in": MELS,
        "xscaling": False,
        "use_bias": False,
        "subsampling_conv_channels": CHANNELS,
        "att_context_size": [[56, lookahead] for lookahead in LOOKAHEADS],
        "att_context_probs": [0.2] * 5,
        "dropout": 0.1,
        "dropout_pre_encoder": 0.1,
        "dropout_att": 0.1,
    }
    raw["decoder"]["prednet"]["pred_rnn_layers"] = 2
    raw["joint"]["jointnet"]["dropout"] = 0.2
    rng = np.random.RandomState(seed)
    shapes = ConformerModel(read_config(raw, "random")).state_dict()
    state = {name: _draw(name, tuple(value.shape), rng) for name, value in shapes.items()}
    blank = len(raw["labels"])
    state["decoder.prediction.embed.weight"][blank] = 0
    # Otherwise every frame would say the same token: kernels that sum to zero see changes, not the level of the mel;
    # attention averages less; the predictor forgets. The layers stay plainly random: sharper ones magnify rounding,
    # NeMo's own too, past any fixed tolerance.
    first = state["encoder.pre_encode.conv.0.weight"]
    first -= first.mean((2, 3), keepdims=True)
    for layer in range(raw["encoder"]["n_layers"]):
        state[f"encoder.layers.{layer}.self_attn.linear_out.weight"] *= np.float32(0.5)
    for name in state:
        if "bias_ih" in name:
            state[name][128:256] -= np.float32(3)
    state["decoder.prediction.embed.weight"] *= np.float32(4)
    state["joint.enc.weight"] *= np.float32(4)
    state["joint.pred.weight"] *= np.float32(1.5)
    state["joint.joint_net.2.weight"] *= np.float32(4)
    state["ctc_decoder.decoder_layers.0.weight"] *= np.float32(5)
    state[WINDOW] = np.hanning(400).astype(np.float32)
    state[FILTERS] = _filters()[None]
    # What all frames have in common is taken out of the heads' input; rounded, so that no machine's last bits matter.
    model = ConformerModel(read_config(raw, "random")).eval()
    model.load_state_dict({name: torch.from_numpy(state[name]) for name in shapes})
    mel = torch.from_numpy(MelFilters(state[FILTERS][0], state[WINDOW]).whole(utterance(3)[1]))
    with torch.no_grad():
        encoded, _ = model.encoder(mel[None], torch.tensor([len(mel)]), LOOKAHEADS[1])
    common = np.round(encoded[0].mean(0).numpy() * 32) / np.float32(32)
    state["joint.enc.bias"] -= state["joint.enc.weight"] @ common
    ctc = "ctc_decoder.decoder_layers.0"
    state[f"{ctc}.bias"] -= state[f"{ctc}.weight"][:, :, 0] @ common
    state["joint.joint_net.2.bias"][blank] += np.float32(RNNT_BLANK)
    state[f"{ctc}.bias"][blank] += np.float32(CTC_BLANK)
    write_checkpoint(path, raw, {name: torch.from_numpy(value) for name, value in state.items()}, members)


def _draw(name: str, shape: tuple[int, ...], rng: np.random.RandomState) -> np.ndarray[Any, np.dtype[np.float32]]:
    value = rng.randn(*shape)
    if "norm" in name and name.endswith("weight"):
        return (1 + 0.2 * value).astype(np.float32)
    if len(shape) == 1 or "pos_bias" in name:
        return (0.1 * value).astype(np.float32)
    return (value / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def _filters() -> np.ndarray[Any, np.dtype[np.float32]]:
    """Triangles, evenly spaced in mel: (128, 257)."""
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), MELS + 2) / 2595) - 1) / 8000 * 256
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bins = np.arange(257)[None]
    up, down = (bins - low) / (middle - low), (high - bins) / (high - middle)
    return (np.maximum(0, np.minimum(up, down)) * 0.02).astype(np.float32)


def _members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        files = ((info.name.removeprefix("./"), archive.extractfile(info)) for info in archive if info.isreg())
        return {name: file.read() for name, file in files if file}
