"""What decoding and the front end need of a checkpoint, as numpy arrays: the content of a bundle's weights.npz."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nemostream.encoders import Floats
from nemostream.models.checkpoint import FILTERS, WINDOW, Checkpoint

if TYPE_CHECKING:
    from nemostream.models.heads import ConformerModel


def decoder_weights(checkpoint: Checkpoint, model: ConformerModel) -> dict[str, Floats]:
    """weights.npz: NeMo's matrices transposed to (in, out), the two biases of each LSTM layer added."""
    state, config = checkpoint.state, checkpoint.config

    def array(name: str) -> Floats:
        return np.ascontiguousarray(state[name].numpy(), np.float32)

    def matrix(name: str) -> Floats:
        return np.ascontiguousarray(array(name).T)

    weights = {"mel.window": array(WINDOW), "mel.filters": array(FILTERS)[0]}
    if config.ctc_prefix:
        head = f"{config.ctc_prefix}.decoder_layers.0"
        weights["ctc.weight"] = np.ascontiguousarray(array(f"{head}.weight")[:, :, 0].T)
        weights["ctc.bias"] = array(f"{head}.bias")
    if config.transducer:
        weights["rnnt.embedding"] = array("decoder.prediction.embed.weight")
        for layer in range(config.transducer.pred_layers):
            lstm = "decoder.prediction.dec_rnn.lstm."
            weights |= {
                f"rnnt.lstm.{layer}.w_ih": matrix(f"{lstm}weight_ih_l{layer}"),
                f"rnnt.lstm.{layer}.w_hh": matrix(f"{lstm}weight_hh_l{layer}"),
                f"rnnt.lstm.{layer}.bias": array(f"{lstm}bias_ih_l{layer}") + array(f"{lstm}bias_hh_l{layer}"),
            }
        last = f"joint.joint_net.{len(model.joint.joint_net) - 1}"
        for part, source in (("enc", "joint.enc"), ("pred", "joint.pred"), ("out", last)):
            weights[f"joint.{part}.weight"] = matrix(f"{source}.weight")
            weights[f"joint.{part}.bias"] = array(f"{source}.bias")
    return weights
