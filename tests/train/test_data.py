"""What goes into a batch: no held-out sentence, the right samples, the front end of the runtime, aligned lines."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from nemostream.mel import MelFilters
from nemostream.models.checkpoint import FILTERS, WINDOW, read_checkpoint
from tests.speech import utterance
from train.codecs import lose_packets, mu_law, opus
from train.data import SAMPLE_RATE, Samples, load_corpus
from train.features import TRACTS, LogMel, mask_spectrum, warp
from train.heldout import held_out_sentences
from train.speak import write_shard


def encode(text: str) -> list[int]:
    return [ord(letter) % 7 for letter in text]


def test_held_out_sentences_are_rejected_however_they_are_written(tmp_path: Path) -> None:
    held_out = tmp_path / "heldout"
    held_out.mkdir()
    (held_out / "manifest.jsonl").write_text(json.dumps({"text": "call anna at two o'clock"}) + "\n")
    (tmp_path / "general.txt").write_text("The stocks had a fast run-up\n")
    sentences = held_out_sentences([held_out, tmp_path / "general.txt"])
    texts = ["Call Anna, at two o'clock!", "call anna at three o'clock", "the stocks had a fast run up"]
    write_shard(tmp_path / "corpus", 0, [(text, np.ones(SAMPLE_RATE, np.float32) / 9, "test") for text in texts])
    clips = load_corpus([tmp_path / "corpus"], sentences, encode, tmp_path / "pcm")
    assert [clip.text for clip in clips] == ["call anna at three o'clock"]


def test_a_clip_is_cut_where_its_sentence_was_spoken(tmp_path: Path) -> None:
    hertz = np.array([400, 900, 1600])
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    tones = [(str(f), (0.3 * np.sin(2 * np.pi * f * time)).astype(np.float32)) for f in hertz]
    write_shard(tmp_path / "corpus", 0, [(f"tone {'abc'[i]}", wave, "test") for i, (_, wave) in enumerate(tones)])
    clips = load_corpus([tmp_path / "corpus"], frozenset(), encode, tmp_path / "pcm")
    peaks = [np.abs(np.fft.rfft(clip.wave())).argmax() * SAMPLE_RATE / len(clip.samples) for clip in clips]
    np.testing.assert_allclose(peaks, hertz, atol=2)


def test_a_folder_four_times_as_long_is_drawn_from_twice_as_often(tmp_path: Path) -> None:
    wave = np.ones(SAMPLE_RATE, np.float32) / 9
    for folder, count in ("short", 2), ("long", 8):
        write_shard(tmp_path / folder, 0, [(f"sentence {folder} {'abcdefgh'[i]}", wave, folder) for i in range(count)])
    clips = load_corpus([tmp_path / "short", tmp_path / "long"], frozenset(), encode, tmp_path / "pcm")
    shares = {voice: sum(clip.weight for clip in clips if clip.voice == voice) for voice in ("short", "long")}
    assert shares["long"] == pytest.approx(2 * shares["short"])


def test_training_hears_the_mel_that_the_runtime_computes(toy_nemo: Path) -> None:
    checkpoint = read_checkpoint(toy_nemo)
    state, config = checkpoint.state, checkpoint.config.mel
    _, samples = utterance(3)
    mel, lengths = LogMel(config, state[FILTERS], state[WINDOW])(
        torch.from_numpy(samples)[None], torch.tensor([len(samples)])
    )
    expected = MelFilters(state[FILTERS][0].numpy(), state[WINDOW].numpy()).whole(samples)
    np.testing.assert_allclose(mel[0, : len(expected)].numpy(), expected, atol=2e-3)
    assert 0 <= int(lengths[0]) - len(expected) <= 2


@pytest.mark.parametrize("factor", [TRACTS[0], TRACTS[-1]])
def test_another_vocal_tract_moves_formants_in_proportion(toy_nemo: Path, factor: float) -> None:
    filters = read_checkpoint(toy_nemo).state[FILTERS][0]
    assert torch.equal(warp(filters, 1.0), filters)
    bins = torch.arange(filters.shape[1], dtype=torch.float32)
    warped = warp(filters, factor)
    for formant in 20.0, 60.0, 120.0:
        heard, moved = (torch.exp(-0.5 * ((bins - place) / 4) ** 2) for place in (formant, formant * factor))
        assert abs((warped @ heard).argmax() - (filters @ moved).argmax()) <= 1 < abs(formant * (factor - 1))
    assert (warped @ torch.ones_like(bins)).numpy() == pytest.approx(
        (filters @ torch.ones_like(bins)).numpy(), rel=1e-4
    )


def test_each_row_has_its_own_vocal_tract(toy_nemo: Path) -> None:
    checkpoint = read_checkpoint(toy_nemo)
    mel = LogMel(checkpoint.config.mel, checkpoint.state[FILTERS], checkpoint.state[WINDOW])
    _, samples = utterance(3)
    batch, lengths = torch.from_numpy(samples)[None].repeat(3, 1), torch.tensor([len(samples)] * 3)
    plain, _ = mel(batch, lengths)
    others, _ = mel(batch, lengths, torch.tensor([TRACTS.index(1.0), 0, len(TRACTS) - 1]))
    torch.testing.assert_close(others[0], plain[0])
    assert all((others[i] - plain[i]).abs().mean() > 0.05 for i in (1, 2))


def test_masks_replace_at_most_what_they_may() -> None:
    torch.manual_seed(0)
    mel = torch.randn(8, 200, 80)
    masked = mask_spectrum(mel, torch.full((8,), 200))
    share = (masked != mel).float().mean().item()
    assert 0.05 < share < 2 * 14 / 80 + 3 * 12 / 200


def speechlike() -> Samples:
    _, samples = utterance(5)
    return samples


@pytest.mark.parametrize("bit_rate", [16_000, 32_000])
def test_opus_keeps_length_and_time(bit_rate: int) -> None:
    x = speechlike()
    assert abs(_lag(x, opus(x, bit_rate))) <= 2


def test_mu_law_keeps_length_and_time() -> None:
    x = speechlike()
    y = mu_law(x)
    assert _lag(x, y) == 0 and len(y) == len(x)


def test_lost_packets_are_silent_or_repeated_and_the_rest_untouched() -> None:
    x = speechlike()
    y = lose_packets(x, 0.1, np.random.default_rng(1))
    same = np.mean(x[: len(x) // 320 * 320].reshape(-1, 320) == y[: len(x) // 320 * 320].reshape(-1, 320), axis=1)
    assert 0.8 < np.mean(same == 1) < 0.97


def _lag(x: Samples, y: Samples) -> int:
    """Samples by which y comes later than x."""
    assert len(x) == len(y)
    size = 1 << (2 * len(x)).bit_length()
    correlation = np.fft.irfft(np.fft.rfft(y, size) * np.conj(np.fft.rfft(x, size)), size)
    lag = int(correlation.argmax())
    return lag if lag < size // 2 else lag - size
