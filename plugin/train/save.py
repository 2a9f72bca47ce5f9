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

import yaml

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
