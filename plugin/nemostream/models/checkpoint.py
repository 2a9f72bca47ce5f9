"""Reading a .nemo (a tar of a config, a state dict and a tokenizer) without NeMo, and without running its content.

    checkpoint = read_checkpoint("model.nemo")
    checkpoint.config.encoder.d_model, checkpoint.state["encoder.pre_encode.out.weight"]

Nothing is extracted to disk and only three members are ever read, so that no path in the archive matters; the weights
are loaded with weights_only=True, which refuses every pickle that holds more than tensors.
"""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from nemostream.errors import CheckpointError
from nemostream.models.config import ConformerConfig, read_config

if TYPE_CHECKING:
    from torch import Tensor

    from nemostream.models.heads import ConformerModel

CONFIG, WEIGHTS = "model_config.yaml", "model_weights.ckpt"
WINDOW, FILTERS = "preprocessor.featurizer.window", "preprocessor.featurizer.fb"
UNUSED = ("preprocessor.", "spec_augmentation.", "loss.", "ctc_loss.", "wer.", "ctc_wer.")
"""What a state dict may hold beside the layers that run."""
_CONFIG_LIMIT = 64 << 20
_TOKENIZER_LIMIT = 64 << 20


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A .nemo in memory.

    Attributes:
        state: NeMo's names to float32 CPU tensors.
        tokenizer: the sentencepiece model; None where there is none, or one for each language.
    """

    path: Path
    config: ConformerConfig
    state: dict[str, Tensor]
    tokenizer: bytes | None = None

    def model(self, share: bool = False) -> ConformerModel:
        """Our modules with these weights, in eval mode; with `share` the very tensors of `state`, not copies.

        Raises:
            CheckpointError: a weight is missing, too many, or of another shape than the config says.
        """
        import torch

        from nemostream.models.heads import ConformerModel

        # Without weights of its own: those of a large model are as much memory again.
        with torch.device("meta"):
            model = ConformerModel(self.config)
        wanted = model.state_dict()
        for name, value in wanted.items():
            found = self.state.get(name)
            if found is None or found.shape != value.shape:
                shape = "missing" if found is None else f"of shape {tuple(found.shape)}"
                raise CheckpointError(
                    f"{self.path}: weight {name} is {shape}, its config asks for "
                    f"{tuple(value.shape)}; download or save the model again."
                )
        # A weight that nothing here computes with means another architecture: refuse rather than drop it.
        for name in self.state:
            if name not in wanted and not name.startswith(UNUSED):
                raise CheckpointError(
                    f"{self.path}: weight {name} belongs to no layer that is supported; use a plain "
                    "cache-aware FastConformer."
                )
        weights = {name: self.state[name] if share else self.state[name].clone() for name in wanted}
        model.load_state_dict(weights, assign=True)
        return model.eval()


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read `path`.

    Raises:
        CheckpointError: no such file, not a .nemo, damaged, not cache-aware, or torch is not installed.
    """
    path = Path(path)
    torch = _torch(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; give the path of a .nemo checkpoint.")
    try:
        with tarfile.open(path, "r:*") as archive:
            raw = _yaml(_member(archive, CONFIG, path).read(_CONFIG_LIMIT), path)
            config = read_config(raw, str(path))
            tokenizer = _tokenizer(archive, raw, path)
            state = _state(_member(archive, WEIGHTS, path), path)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        why = str(error).partition("\n")[0].rstrip(":")  # tarfile appends a line for every format it tried
        raise CheckpointError(f"{path}: not a readable .nemo archive ({why}); download it again.") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise CheckpointError(f"{path}: {WEIGHTS} is not a state dict of tensors; save the model again with save_to.")
    state = {str(name): value.float() for name, value in state.items()}
    mel = config.mel
    for name, shape in ((WINDOW, (mel.win,)), (FILTERS, (1, mel.n_mels, mel.n_fft // 2 + 1))):
        if name not in state or tuple(state[name].shape) != shape:
            raise CheckpointError(
                f"{path}: {name} of shape {shape} is not in {WEIGHTS}; save the model again with a current NeMo."
            )
    return Checkpoint(path, config, state, tokenizer)


def _state(member: IO[bytes], path: Path) -> Any:
    import torch

    content = io.BytesIO(member.read())
    try:
        return torch.load(content, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its unpickler or zip reader met
        raise CheckpointError(
            f"{path}: {WEIGHTS} is damaged or holds more than tensors, it was not loaded; "
            "download the model again from its publisher."
        ) from error


def write_checkpoint(
    path: Path, config: Mapping[str, Any], state: Mapping[str, Tensor], members: Mapping[str, bytes]
) -> None:
    """Write a .nemo that NeMo restores: `config` is its model_config, `members` the tokenizer's files by name."""
    import torch
    import yaml

    weights = io.BytesIO()
    torch.save(dict(state), weights)
    text = yaml.safe_dump(dict(config), allow_unicode=True, sort_keys=False).encode()
    with tarfile.open(path, "w") as archive:
        for name, content in {CONFIG: text, WEIGHTS: weights.getvalue(), **members}.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def _tokenizer(archive: tarfile.TarFile, raw: Mapping[str, Any], path: Path) -> bytes | None:
    """The member that the configuration names, as in `model_path: nemo:<md5>_tokenizer.model`; recognition does not
    need it, so nothing is refused for its sake."""
    tokenizer = raw.get("tokenizer")
    name = str(tokenizer.get("model_path", "")) if isinstance(tokenizer, Mapping) else ""
    if not (name.startswith("nemo:") and name.endswith(".model")):
        return None
    try:
        return _member(archive, name.removeprefix("nemo:"), path).read(_TOKENIZER_LIMIT)
    except CheckpointError:
        return None


def _member(archive: tarfile.TarFile, name: str, path: Path) -> IO[bytes]:
    """The member of that name at the top of the archive; links are refused, they could lead anywhere."""
    for info in archive:
        if info.name.removeprefix("./") == name and info.isreg():
            content = archive.extractfile(info)
            assert content is not None
            return content
    raise CheckpointError(f"{path}: no {name} in the archive; this is not a NeMo checkpoint.")


def _yaml(text: bytes, path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        raw = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: {CONFIG} is not readable YAML; download the model again.") from error
    if not isinstance(raw, Mapping):
        raise CheckpointError(f"{path}: {CONFIG} holds no configuration; download the model again.")
    return raw


def _torch(path: Path) -> Any:
    try:
        import torch
    except ImportError as error:
        raise CheckpointError(
            f"{path}: reading a .nemo needs torch; run pip install 'livekit-plugins-nemo[convert]'."
        ) from error
    return torch
