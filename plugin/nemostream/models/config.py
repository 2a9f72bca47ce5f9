"""What a NeMo model_config says about a cache-aware FastConformer, as plain frozen dataclasses.

    config = read_config(yaml.safe_load(text), "model.nemo")
    config.encoder.lookaheads      # (13, 6, 1, 0)

Everything that our encoder does not compute is refused by name here, so that a wrong transcript can never come from a
setting that was silently ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nemostream.errors import CheckpointError

SAMPLE_RATE = 16_000
SUBSAMPLING = 8
MODELS = (
    "EncDecRNNTBPEModel",
    "EncDecHybridRNNTCTCBPEModel",
    "EncDecCTCModelBPE",
    "EncDecRNNTBPEEOUModel",
    "EncDecHybridRNNTCTCBPEEOUModel",
    "EncDecRNNTBPEModelWithPrompt",
    "EncDecHybridRNNTCTCBPEModelWithPrompt",
)
"""NeMo's classes (nemo.collections.asr.models) that differ in nothing but what is read here."""


@dataclass(frozen=True, slots=True)
class MelConfig:
    """The log-mel front end: `hop` and `win` in samples at 16 kHz; log(power + guard)."""

    n_mels: int
    n_fft: int = 512
    hop: int = 160
    win: int = 400
    preemphasis: float = 0.97
    guard: float = 2.0**-24


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """The encoder's shape. `left_context` and `lookaheads` count encoder frames of 80 ms; a lookahead of r makes chunks
    of r + 1 frames. `lookahead_weights` are the shares in which training draws them."""

    n_mels: int
    n_layers: int
    d_model: int
    n_heads: int
    left_context: int
    lookaheads: tuple[int, ...]
    lookahead_weights: tuple[float, ...]
    ff_expansion: int = 4
    conv_kernel: int = 9
    subsampling_channels: int = 256
    xscaling: bool = True
    use_bias: bool = True
    dropout: float = 0.1
    dropout_pre_encoder: float = 0.1
    dropout_emb: float = 0.0
    dropout_att: float = 0.1

    @property
    def chunk_frames(self) -> tuple[int, ...]:
        """T of every chunk size on offer, ascending."""
        return tuple(sorted({r + 1 for r in self.lookaheads}))

    @property
    def frequencies(self) -> tuple[int, int, int]:
        """Frequency rows after each of the three strided stages (2 low and 1 high of padding, kernel 3, stride 2)."""
        first = self.n_mels // 2 + 1
        second = first // 2 + 1
        return first, second, second // 2 + 1


@dataclass(frozen=True, slots=True)
class TransducerConfig:
    """Predictor (an LSTM) and joint network; `max_symbols` tokens at most per frame."""

    pred_hidden: int
    pred_layers: int
    joint_hidden: int
    max_symbols: int = 10
    pred_dropout: float = 0.0
    joint_dropout: float = 0.0


@dataclass(frozen=True, slots=True)
class PromptConfig:
    """A language prompt: a one-hot vector of `size` behind every encoder frame. `index` says which place is whose."""

    size: int
    index: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class ConformerConfig:
    """A whole model. `transducer` is None for pure CTC; `ctc_prefix` is where the CTC head's weights are named in the
    state dict, None without one. Token id len(tokens) is the blank."""

    mel: MelConfig
    encoder: EncoderConfig
    transducer: TransducerConfig | None
    ctc_prefix: str | None
    tokens: tuple[str, ...]
    prompt: PromptConfig | None = None


def read_config(raw: Mapping[str, Any], where: str) -> ConformerConfig:
    """Read NeMo's model_config; `where` names the file in errors.

    Raises:
        CheckpointError: a key is missing or of the wrong kind, or the model is one that cannot stream here.
    """
    return _Reader(raw, where).model()


class _Reader:
    """Looks keys up by dotted path, so that every refusal can name file, key and remedy."""

    def __init__(self, raw: Mapping[str, Any], where: str) -> None:
        self.raw, self.where = raw, where

    def get(self, path: str, default: Any = None) -> Any:
        node: Any = self.raw
        for key in path.split("."):
            if not isinstance(node, Mapping) or node.get(key) is None:
                return default
            node = node[key]
        return node

    def number(self, path: str, default: float | None = None) -> float:
        value = self.get(path, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise CheckpointError(
                f"{self.where}: {path} in model_config.yaml is {value!r}, a number is needed; "
                "the file is damaged or not an ASR model."
            )
        return value

    def count(self, path: str, default: int | None = None) -> int:
        value = self.number(path, default)
        if value != int(value) or not 0 < value <= 1_000_000:
            raise CheckpointError(
                f"{self.where}: {path} in model_config.yaml is {value!r}, a positive whole number is "
                "needed; the file is damaged or not an ASR model."
            )
        return int(value)

    def share(self, path: str, default: float) -> float:
        value = self.number(path, default)
        if not 0 <= value < 1:
            raise CheckpointError(
                f"{self.where}: {path} in model_config.yaml is {value!r}, a share in 0..1 is needed; "
                "correct it or use another checkpoint."
            )
        return float(value)

    def expect(self, path: str, allowed: tuple[Any, ...], default: Any, remedy: str) -> None:
        value = self.get(path, default)
        if value not in allowed:
            raise CheckpointError(f"{self.where}: {path} is {value!r}, only {allowed[0]!r} is supported; {remedy}.")

    def model(self) -> ConformerConfig:
        streaming = "use a cache-aware streaming FastConformer checkpoint (for example a *_streaming_* or nemotron one)"
        if not isinstance(self.get("encoder"), Mapping):
            raise CheckpointError(f"{self.where}: model_config.yaml has no encoder; {streaming}.")
        for path, allowed, default in (
            ("encoder.att_context_style", ("chunked_limited",), "regular"),
            ("encoder.conv_context_size", ("causal",), None),
            ("encoder.causal_downsampling", (True,), False),
            ("encoder.conv_norm_type", ("layer_norm",), "batch_norm"),
            ("encoder.subsampling", ("dw_striding",), "striding"),
            ("encoder.subsampling_factor", (SUBSAMPLING,), 4),
            ("encoder.self_attention_model", ("rel_pos",), "rel_pos"),
            ("encoder.conv_context_style", ("regular",), "regular"),
            ("encoder.reduction", (None,), None),
            ("encoder.global_tokens", (0,), 0),
            ("preprocessor.normalize", ("NA", "None", False), "NA"),
        ):
            self.expect(path, allowed, default, streaming)
        self.kind()
        tdt = self.get("model_defaults.tdt_durations") or self.get("decoding.durations")
        if tdt or self.get("joint.num_extra_outputs", 0) or self.get("loss.loss_name") == "tdt":
            raise CheckpointError(
                f"{self.where}: loss.loss_name 'tdt' (a token-and-duration transducer) is not "
                "supported; use an RNN-T, CTC or hybrid checkpoint."
            )
        mel = self.mel()
        transducer, ctc_prefix = self.decoders()
        return ConformerConfig(mel, self.encoder(mel.n_mels), transducer, ctc_prefix, self.tokens(), self.prompt())

    def kind(self) -> None:
        """The class of the model and its tokenizer are among those whose sums and pieces are known here."""
        target = str(self.get("target", "")).rpartition(".")[2]
        if target and target not in MODELS:
            raise CheckpointError(
                f"{self.where}: a {target} is not supported; use a checkpoint of one of {', '.join(MODELS)}."
            )
        if self.get("spk_kernel_type"):
            raise CheckpointError(
                f"{self.where}: spk_kernel_type {self.get('spk_kernel_type')!r} (a multi-talker model) is not "
                "supported; use a single-speaker checkpoint."
            )
        pieces = "only SentencePiece tokenizers are supported; use a BPE checkpoint"
        self.expect("tokenizer.type", ("bpe", "agg"), "", pieces)

    def prompt(self) -> PromptConfig | None:
        if not self.get("model_defaults.initialize_prompt_feature", False):
            return None
        path = "model_defaults.prompt_dictionary"
        size = self.count("num_prompts", self.count("model_defaults.num_prompts", 128))
        index = self.get(path)
        if not isinstance(index, Mapping) or not index:
            raise CheckpointError(
                f"{self.where}: {path} in model_config.yaml is {index!r}, languages and their numbers are needed; the "
                "file is damaged."
            )
        for language, number in index.items():
            if not isinstance(language, str) or isinstance(number, bool) or number not in range(size):
                raise CheckpointError(
                    f"{self.where}: {path} has {language!r}: {number!r}, a number below num_prompts ({size}) is "
                    "needed; the file is damaged."
                )
        return PromptConfig(size, dict(index))

    def mel(self) -> MelConfig:
        standard = "only NeMo's standard 16 kHz log-mel front end is supported"
        for path, allowed, default in (
            ("sample_rate", (SAMPLE_RATE,), SAMPLE_RATE),
            ("window_size", (0.025,), 0.025),
            ("window_stride", (0.01,), 0.01),
            ("n_fft", (512,), 512),
            ("frame_splicing", (1,), 1),
            ("mag_power", (2.0,), 2.0),
            ("log", (True,), True),
            ("log_zero_guard_type", ("add",), "add"),
            ("exact_pad", (False,), False),
        ):
            self.expect(f"preprocessor.{path}", allowed, default, standard)
        preemphasis = self.share("preprocessor.preemph", 0.97)
        guard = self.get("preprocessor.log_zero_guard_value", 2.0**-24)
        if isinstance(guard, bool) or not isinstance(guard, (int, float)) or not guard > 0:
            raise CheckpointError(
                f"{self.where}: preprocessor.log_zero_guard_value is {guard!r}, only a positive "
                f"number is supported; {standard}."
            )
        return MelConfig(self.count("preprocessor.features", 64), preemphasis=preemphasis, guard=float(guard))

    def encoder(self, n_mels: int) -> EncoderConfig:
        pairs = self.get("encoder.att_context_size")
        if isinstance(pairs, list) and pairs and isinstance(pairs[0], int):
            pairs = [pairs]
        try:
            contexts = [(int(left), int(right)) for left, right in pairs]
        except (TypeError, ValueError):
            contexts = []
        lefts = {left for left, _ in contexts}
        if len(lefts) != 1 or any(right < 0 or not right < left <= 1000 for left, right in contexts):
            raise CheckpointError(
                f"{self.where}: encoder.att_context_size is {pairs!r}, pairs of one limited left "
                "context and a lookahead below it are needed; use a cache-aware checkpoint."
            )
        weights = self.get("encoder.att_context_probs") or [1.0 / len(contexts)] * len(contexts)
        if not isinstance(weights, list) or len(weights) != len(contexts):
            raise CheckpointError(
                f"{self.where}: encoder.att_context_probs is {weights!r}, one share for each of "
                f"{len(contexts)} lookaheads is needed; correct it or remove it."
            )
        d_model, heads = self.count("encoder.d_model"), self.count("encoder.n_heads", 4)
        self.expect("encoder.feat_in", (n_mels,), n_mels, "it must equal preprocessor.features")
        self.expect("encoder.feat_out", (-1, 0, d_model), -1, "an output projection is not computed here")
        kernel = self.count("encoder.conv_kernel_size", 31)
        if d_model % heads or d_model % 2 or kernel % 2 == 0:
            raise CheckpointError(
                f"{self.where}: encoder.d_model {d_model}, n_heads {heads} and conv_kernel_size "
                f"{kernel} do not fit together; the file is damaged."
            )
        channels = self.get("encoder.subsampling_conv_channels", -1)
        return EncoderConfig(
            n_mels=n_mels,
            n_layers=self.count("encoder.n_layers"),
            d_model=d_model,
            n_heads=heads,
            left_context=contexts[0][0],
            lookaheads=tuple(right for _, right in contexts),
            lookahead_weights=tuple(float(weight) for weight in weights),
            ff_expansion=self.count("encoder.ff_expansion_factor", 4),
            conv_kernel=kernel,
            subsampling_channels=d_model if channels == -1 else self.count("encoder.subsampling_conv_channels"),
            xscaling=bool(self.get("encoder.xscaling", True)),
            use_bias=bool(self.get("encoder.use_bias", True)),
            dropout=self.share("encoder.dropout", 0.1),
            dropout_pre_encoder=self.share("encoder.dropout_pre_encoder", 0.1),
            dropout_emb=self.share("encoder.dropout_emb", 0.1),
            dropout_att=self.share("encoder.dropout_att", 0.0),
        )

    def decoders(self) -> tuple[TransducerConfig | None, str | None]:
        kind = str(self.get("decoder._target_", "")).rpartition(".")[2]
        if kind == "ConvASRDecoder":
            return None, "decoder"
        if kind != "RNNTDecoder":
            raise CheckpointError(
                f"{self.where}: decoder._target_ is {kind!r}, only RNNTDecoder and ConvASRDecoder "
                "are supported; use an RNN-T, CTC or hybrid checkpoint."
            )
        plain = "only the plain LSTM predictor and ReLU joint are supported"
        hidden = self.count("decoder.prednet.pred_hidden")
        self.expect("decoder.normalization_mode", (None,), None, plain)
        self.expect("decoder.blank_as_pad", (True,), True, plain)
        self.expect("decoder.prednet.rnn_hidden_size", (-1, hidden), -1, plain)
        self.expect("joint.jointnet.activation", ("relu",), "relu", plain)
        transducer = TransducerConfig(
            pred_hidden=hidden,
            pred_layers=self.count("decoder.prednet.pred_rnn_layers", 1),
            joint_hidden=self.count("joint.jointnet.joint_hidden"),
            max_symbols=self.count("decoding.greedy.max_symbols", 10),
            pred_dropout=self.share("decoder.prednet.dropout", 0.0),
            joint_dropout=self.share("joint.jointnet.dropout", 0.0),
        )
        return transducer, "ctc_decoder" if self.get("aux_ctc.decoder") else None

    def tokens(self) -> tuple[str, ...]:
        for path in ("joint.vocabulary", "aux_ctc.decoder.vocabulary", "decoder.vocabulary", "labels"):
            pieces = self.get(path)
            if isinstance(pieces, list) and pieces and all(isinstance(piece, str) for piece in pieces):
                return tuple(pieces)
        raise CheckpointError(
            f"{self.where}: no vocabulary in model_config.yaml (joint.vocabulary, labels); save the "
            "model again with NeMo's save_to."
        )
