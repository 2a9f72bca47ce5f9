"""A model that grows writes what it wrote before, and its new layers learn."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nemostream.errors import CheckpointError
from nemostream.models.checkpoint import read_checkpoint
from train.save import BRANCHES, Template

START = Path(__file__).parents[2] / "plugin" / "train" / "start.nemo"


def test_a_deeper_encoder_starts_as_what_it_grew_from(tmp_path: Path) -> None:
    template = Template.read(START)
    grown = template.grown(12)
    assert grown.raw["encoder"]["n_layers"] == grown.checkpoint.config.encoder.n_layers == 12
    before, after = template.checkpoint.model().eval(), grown.checkpoint.model()
    mel = torch.randn(2, 400, template.checkpoint.config.mel.n_mels, generator=torch.Generator().manual_seed(1)) - 8
    lengths = torch.tensor([400, 300])
    with torch.no_grad():
        (was, _), (now, _) = (m.eval().encoder(mel, lengths, 1) for m in (before, after))
        words = [m.get_submodule("ctc_decoder")(out).argmax(-1) for m, out in ((before, was), (after, now))]
    assert torch.nn.functional.cosine_similarity(was, now, dim=-1).min() > 0.98
    assert (words[0] == words[1]).float().mean() > 0.97

    out, _ = after.train().encoder(mel, lengths, 1)
    out.square().sum().backward()
    layers = after.encoder.layers
    new = [i for i in range(12) if not layers[i].get_submodule(BRANCHES[0]).weight.any()]
    assert len(new) == 4
    assert all(layers[i].get_submodule(name).weight.grad.any() for i in new for name in BRANCHES)

    grown.save(after, tmp_path / "grown.nemo")
    assert read_checkpoint(tmp_path / "grown.nemo").config.encoder.n_layers == 12


def test_it_does_not_shrink() -> None:
    template = Template.read(START)
    same = template.grown(8)
    assert all(torch.equal(value, same.checkpoint.state[name]) for name, value in template.checkpoint.state.items())
    with pytest.raises(CheckpointError, match="8 layers are more than 7"):
        template.grown(7)
