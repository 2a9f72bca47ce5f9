"""A .nemo as a template: its configuration and tokenizer go on, its weights are replaced by those that were trained.

template = Template.read(Path("en_starter.nemo"))
template.save(model, Path("best.nemo"))
"""

from __future__ import annotations

import os
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from nemostream.errors import CheckpointError
from nemostream.models.checkpoint import (
    CONFIG,
    FILTERS,
    WEIGHTS,
    WINDOW,
    Checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from nemostream.models.config import read_config
from nemostream.models.heads import ConformerModel

LAYER = "encoder.layers."
BRANCHES = ("feed_forward1.linear2", "self_attn.linear_out", "conv.pointwise_conv2", "feed_forward2.linear2")
"""Where a layer's four branches come back to what they add to."""


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """`raw` is NeMo's model_config, `members` the archive's other files by name, `checkpoint` what it held at first."""

    raw: dict[str, Any]
    members: dict[str, bytes]
    checkpoint: Checkpoint

    @classmethod
    def read(cls, path: Path) -> Template:
        """Read `path`.

        Raises:
            CheckpointError: not a .nemo that nemostream can read, or one without a SentencePiece tokenizer.
        """
        checkpoint = read_checkpoint(path)
        with tarfile.open(path) as archive:
            files = [(info.name.removeprefix("./"), archive.extractfile(info)) for info in archive if info.isreg()]
            members = {name: file.read() for name, file in files if file}
        raw = yaml.safe_load(members.pop(CONFIG))
        del members[WEIGHTS]
        if not any(name.endswith("tokenizer.model") for name in members):
            raise CheckpointError(f"{path}: no SentencePiece tokenizer.model in the archive; train from a BPE model.")
        return cls(raw, members, checkpoint)

    def with_layers(self, layers: int) -> Template:
        """The same, but for an encoder of so many layers, whose weights are yet to be trained."""
        raw = {**self.raw, "encoder": {**self.raw["encoder"], "n_layers": layers}}
        config = read_config(raw, self.checkpoint.path.name)
        return replace(self, raw=raw, checkpoint=replace(self.checkpoint, config=config))

    def grown(self, layers: int) -> Template:
        """A deeper encoder that starts as what it grew from: behind each layer stand copies of it that add nothing yet,
        as in progressive stacking (Gong et al., 2019) with branches that begin at zero (ReZero).

        Raises:
            CheckpointError: it has more layers already.
        """
        here = self.checkpoint.config.encoder.n_layers
        if layers < here:
            raise CheckpointError(f"{self.checkpoint.path}: {here} layers are more than {layers}; it can only grow.")
        deeper = self.with_layers(layers)
        old = self.checkpoint.state
        state = {name: value for name, value in old.items() if not name.startswith(LAYER)}
        for layer in range(layers):
            source = layer * here // layers
            copy = layer > 0 and source == (layer - 1) * here // layers
            prefix = f"{LAYER}{source}."
            found = {name.removeprefix(prefix): value for name, value in old.items() if name.startswith(prefix)}
            state |= {f"{LAYER}{layer}.{name}": v for name, v in (_adding_nothing(found) if copy else found).items()}
        return replace(deeper, checkpoint=replace(deeper.checkpoint, state=state))

    @property
    def tokenizer(self) -> bytes:
        """The SentencePiece model."""
        return next(content for name, content in self.members.items() if name.endswith("tokenizer.model"))

    def trained(self, model: ConformerModel, path: Path) -> Checkpoint:
        """A checkpoint in memory: `model`'s weights, and the front end they were trained behind."""
        front = {name: self.checkpoint.state[name] for name in (WINDOW, FILTERS)}
        state = {name: value.detach().float().cpu() for name, value in model.state_dict().items()}
        return Checkpoint(path, self.checkpoint.config, state | front)

    def save(self, model: ConformerModel, path: Path, *, half: bool = False) -> None:
        """Write a .nemo that NeMo restores, at once or not at all; `half` stores the weights in 16 bits."""
        state = self.trained(model, path).state
        if half:
            state = {name: value if name in (WINDOW, FILTERS) else value.half() for name, value in state.items()}
        partial = path.with_suffix(".partial")
        write_checkpoint(partial, self.raw, state, self.members)
        os.replace(partial, path)


def _adding_nothing(layer: dict[str, Tensor]) -> dict[str, Tensor]:
    """The layer with branches of zero. It still normalises what comes out of a layer like it, so its own scale and
    shift are those of that layer's output over its channels."""
    scale, shift = layer["norm_out.weight"], layer["norm_out.bias"]
    new = {n: torch.zeros_like(v) if n.rpartition(".")[0] in BRANCHES else v.clone() for n, v in layer.items()}
    new["norm_out.weight"] = torch.full_like(scale, float((scale.square().mean() + shift.var(unbiased=False)).sqrt()))
    new["norm_out.bias"] = torch.full_like(shift, float(shift.mean()))
    return new
