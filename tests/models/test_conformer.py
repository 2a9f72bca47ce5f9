"""Our encoder offline against NeMo's own numbers, and that it can be trained."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nemostream.models.config import ConformerConfig
from nemostream.models.conformer import ValidRelu
from nemostream.models.heads import ConformerModel
from tests.models.conftest import Golden

TOLERANCE = 1e-5
"""Rounding of float32 through all layers; processors sum in different orders, and 5.01e-6 is the most that was seen."""


def padded(golden: Golden, filler: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = [len(mel) for mel in golden.mels]
    batch = torch.full((len(lengths), max(lengths), golden.mels[0].shape[1]), filler)
    for row, mel in zip(batch, golden.mels, strict=True):
        row[: len(mel)] = torch.from_numpy(mel)
    return batch, torch.tensor(lengths)


def test_a_padded_batch_equals_nemo_at_every_lookahead(golden: Golden) -> None:
    encoder = golden.model().encoder
    mel, lengths = padded(golden)
    for lookahead in golden.lookaheads:
        with torch.no_grad():
            encoded, frames = encoder(mel, lengths, lookahead)
        for row, length, expected in zip(encoded, frames.tolist(), golden.encoded(lookahead), strict=True):
            assert length == len(expected)
            assert np.abs(row[:length].numpy() - expected).max() < TOLERANCE


def test_what_stands_in_the_padding_does_not_matter(golden: Golden) -> None:
    encoder = golden.model().encoder
    with torch.no_grad():
        quiet, frames = encoder(*padded(golden), 1)
        loud, _ = encoder(*padded(golden, filler=50.0), 1)
    for row, (a, b) in enumerate(zip(quiet, loud, strict=True)):
        assert torch.equal(a[: frames[row]], b[: frames[row]])


def test_no_frame_sees_past_its_lookahead(golden: Golden) -> None:
    encoder = golden.model().encoder
    mel = torch.from_numpy(golden.mels[1])[None]
    changed = mel.clone()
    changed[:, 8 * 14 - 7 :] += 1  # the first mel frame that only the second chunk of 14 needs
    lengths = torch.tensor([mel.shape[1]])
    with torch.no_grad():
        before, after = encoder(mel, lengths, 13)[0], encoder(changed, lengths, 13)[0]
    assert torch.equal(before[:, :14], after[:, :14])
    assert not torch.equal(before[:, 14:], after[:, 14:])


def trainable(config: ConformerConfig) -> ConformerModel:
    torch.manual_seed(0)
    small = dataclasses.replace(config.encoder, n_layers=2, dropout=0.1, dropout_att=0.1, dropout_emb=0.1)
    return ConformerModel(dataclasses.replace(config, encoder=small)).train()


def test_gradients_reach_every_weight(golden: Golden) -> None:
    model = trainable(golden.model().config)
    mel, lengths = padded(golden)
    encoded, _ = model.encoder(mel[1:], lengths[1:], 6)
    predicted, _ = model.decoder(torch.tensor([[128, 5, 7], [128, 9, 2]]))
    ctc = model.get_submodule("ctc_decoder")(encoded)
    (model.joint(encoded, predicted).logsumexp(-1).square().mean() + ctc.square().mean()).backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and weight.grad.abs().sum() > 0, name


def test_dropout_acts_in_training_only(golden: Golden) -> None:
    model = trainable(golden.model().config)
    mel, lengths = padded(golden)
    with torch.no_grad():
        assert not torch.equal(model.encoder(mel, lengths, 6)[0], model.encoder(mel, lengths, 6)[0])
        model.eval()
        assert torch.equal(model.encoder(mel, lengths, 6)[0], model.encoder(mel, lengths, 6)[0])


@pytest.mark.parametrize("lookahead", [13, 0])
def test_a_few_steps_lower_the_ctc_loss(golden: Golden, lookahead: int) -> None:
    model = trainable(golden.model().config)
    mel, lengths = padded(golden)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    losses = []
    for _ in range(4):
        encoded, frames = model.encoder(mel[1:], lengths[1:], lookahead)
        scores = model.get_submodule("ctc_decoder")(encoded).transpose(0, 1)
        labels = torch.tensor([[5, 7], [9, 2]])
        loss = torch.nn.functional.ctc_loss(scores, labels, frames, torch.tensor([2, 2]), blank=128)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_front_ends_one_operation_is_what_the_three_are(layout: torch.memory_format) -> None:
    torch.manual_seed(3)
    x = torch.randn(2, 3, 5, 4).to(memory_format=layout).requires_grad_()
    valid = (torch.arange(5) < torch.tensor([[5], [3]])).float()
    found, expected = ValidRelu.apply(x, valid), F.pad(F.relu(x) * valid[:, None, :, None], (2, 1, 2, 1))
    assert torch.equal(found, expected)
    weights = torch.randn_like(expected)
    gradients = [torch.autograd.grad((y * weights).sum(), x, retain_graph=True)[0] for y in (found, expected)]
    assert torch.equal(*gradients) and gradients[0].any()
