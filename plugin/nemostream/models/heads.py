"""What turns encoder frames into token scores: the RNN-T predictor and joint, and the CTC head, in torch.

Names follow NeMo's state dict: `decoder.prediction.*`, `joint.*`, `ctc_decoder.*` (or `decoder.*` for pure CTC). They
are here for training and for reading checkpoints; at run time greedy.py does the same sums in numpy.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nemostream.models.config import ConformerConfig, TransducerConfig
from nemostream.models.conformer import ConformerEncoder

State = tuple[Tensor, Tensor]
"""h and c of the predictor, (layers, B, P) each."""


class _Lstm(nn.Module):
    """NeMo wraps the LSTM once more; the name is kept."""

    def __init__(self, config: TransducerConfig) -> None:
        super().__init__()
        dropout = config.pred_dropout if config.pred_layers > 1 else 0.0
        self.lstm = nn.LSTM(config.pred_hidden, config.pred_hidden, config.pred_layers, dropout=dropout)
        self.dropout = nn.Dropout(config.pred_dropout)


class Predictor(nn.Module):
    """The language side of RNN-T: tokens so far -> (B, U, P). Blank is the last id, its embedding is zero."""

    def __init__(self, config: TransducerConfig, vocabulary: int) -> None:
        super().__init__()
        self.prediction = nn.ModuleDict(
            {
                "embed": nn.Embedding(vocabulary + 1, config.pred_hidden, padding_idx=vocabulary),
                "dec_rnn": _Lstm(config),
            }
        )

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """tokens (B, U) int64. Training puts the blank (start of sequence) before the labels: U = labels + 1."""
        rnn = self.prediction["dec_rnn"]
        assert isinstance(rnn, _Lstm)
        out, state = rnn.lstm(self.prediction["embed"](tokens).transpose(0, 1), state)
        return rnn.dropout(out.transpose(0, 1)), state


class Joint(nn.Module):
    """Encoder frame and predictor output -> logits over tokens and blank."""

    def __init__(self, config: TransducerConfig, d_model: int, vocabulary: int) -> None:
        super().__init__()
        self.enc = nn.Linear(d_model, config.joint_hidden)
        self.pred = nn.Linear(config.pred_hidden, config.joint_hidden)
        layers: list[nn.Module] = [nn.ReLU()]
        if config.joint_dropout:  # NeMo leaves the module out, which moves the number in the next one's name
            layers.append(nn.Dropout(config.joint_dropout))
        self.joint_net = nn.Sequential(*layers, nn.Linear(config.joint_hidden, vocabulary + 1))

    def forward(self, enc: Tensor, pred: Tensor) -> Tensor:
        """(B, T, D), (B, U, P) -> (B, T, U, V+1) logits."""
        out: Tensor = self.joint_net(self.enc(enc).unsqueeze(2) + self.pred(pred).unsqueeze(1))
        return out


class CtcHead(nn.Module):
    def __init__(self, d_model: int, vocabulary: int) -> None:
        super().__init__()
        self.decoder_layers = nn.Sequential(nn.Conv1d(d_model, vocabulary + 1, 1))

    def forward(self, enc: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, V+1) log probabilities."""
        logits: Tensor = self.decoder_layers(enc.transpose(1, 2))
        return torch.log_softmax(logits.transpose(1, 2), -1)


class ConformerModel(nn.Module):
    """Encoder and heads under NeMo's own names; its state dict plus window and filters is a .nemo's."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        self.config = config
        vocabulary, d_model = len(config.tokens), config.encoder.d_model
        self.encoder = ConformerEncoder(config.encoder)
        if config.transducer:
            self.decoder: nn.Module = Predictor(config.transducer, vocabulary)
            self.joint = Joint(config.transducer, d_model, vocabulary)
        if config.ctc_prefix:
            self.add_module(config.ctc_prefix, CtcHead(d_model, vocabulary))
        if config.prompt:
            # NeMo's PromptStreamingMixin: frame and one-hot prompt -> frame.
            self.prompt_kernel = nn.Sequential(
                nn.Linear(d_model + config.prompt.size, 2 * d_model), nn.ReLU(), nn.Linear(2 * d_model, d_model)
            )
