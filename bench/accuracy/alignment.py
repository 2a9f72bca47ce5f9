"""When words begin, as the model's own CTC decoder has it if it is told what is said.

begins = word_begins(model, clips)[0]      # samples from the clip's first one, a word each; None without CTC

Encoder frames come from the longest chunk on offer, which sees most of what follows; of all ways to write the sentence
with blanks between, the likeliest one is taken, and a word begins with the frame of its first piece. That is where
CTC in hindsight would write it, to a frame of 80 ms: not where a person hears it begin.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import sentencepiece

from bench.accuracy.edits import normalise
from bench.accuracy.manifest import Clip
from nemostream.encoders import Floats
from nemostream.model import Model
from nemostream.protocol import SAMPLE_RATE, Samples
from nemostream.transcript import WORD_START
from tests.models.streaming import encode

ROWS = 32
LEAD_FRAMES, TAIL_SECONDS = 4, 2.4
"""Silence before and behind a clip: at least two of the longest chunks behind."""


def word_begins(model: Model, clips: Sequence[Clip]) -> list[list[int] | None]:
    """For each clip where each word of its normalised text begins; None if it cannot be told: the model has no CTC
    decoder or no tokenizer, it cannot spell the text, or the text is too long for the clip."""
    tokenizer = model.bundle.tokenizer
    if "ctc" not in model.bundle.info.decoders or tokenizer is None or "ctc.weight" not in model.bundle.weights:
        return [None] * len(clips)
    spelling = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.read_bytes())
    spelt: list[list[int]] = spelling.encode([normalise(clip.text) for clip in clips])
    found: list[list[int] | None] = [None] * len(clips)
    lead = LEAD_FRAMES * model.frame_samples
    order = sorted(range(len(clips)), key=lambda i: len(clips[i].samples))
    for start in range(0, len(order), ROWS):
        part = order[start : start + ROWS]
        sounds = [np.pad(clips[i].samples, (lead, round(TAIL_SECONDS * SAMPLE_RATE))) for i in part]
        for i, scores in zip(part, log_probabilities(model, sounds), strict=True):
            frames = align(scores, spelt[i]) if spelt[i] and spelling.unk_id() not in spelt[i] else None
            if frames is not None:
                pieces = [model.bundle.tokens[id] for id in spelt[i]]
                begins = [f for f, piece in zip(frames, pieces, strict=True) if piece.startswith(WORD_START)]
                found[i] = [frame * model.frame_samples - lead for frame in begins]
    return found


def log_probabilities(model: Model, sounds: Sequence[Samples]) -> list[Floats]:
    """(T', V + 1) of each sound, the blank last."""
    mels = [model.mel.whole(sound) for sound in sounds]
    rows = model.backend.rows(max(model.bundle.info.chunk_frames), len(sounds), 0)
    weight, bias = model.bundle.weights["ctc.weight"], model.bundle.weights["ctc.bias"]
    out: list[Floats] = []
    for encoded in encode(rows, mels):
        logits = encoded @ weight + bias
        logits -= logits.max(1, keepdims=True)
        out.append(logits - np.log(np.exp(logits).sum(1, keepdims=True)))
    return out


def align(scores: Floats, tokens: Sequence[int]) -> list[int] | None:
    """The frame at which each token begins on the likeliest path that writes `tokens`, at least one; None if there are
    too few frames. Viterbi over blank, token, blank, ...: a path stays, goes on by one, or leaves out the blank between
    two different tokens.

    Args:
        scores: (T, V + 1) log-probabilities, the blank last.
    """
    blank = scores.shape[1] - 1
    states = np.full(2 * len(tokens) + 1, blank)
    states[1::2] = tokens
    skips = np.zeros(len(states), bool)
    skips[3::2] = states[3::2] != states[1:-2:2]
    best = np.full(len(states), -np.inf)
    best[:2] = scores[0, states[:2]]
    steps = np.zeros((len(scores), len(states)), np.intp)
    for t in range(1, len(scores)):
        one, two = np.roll(best, 1), np.roll(best, 2)
        one[:1] = two[:2] = -np.inf
        two[~skips] = -np.inf
        came = np.stack([best, one, two])
        steps[t] = came.argmax(0)
        best = came.max(0) + scores[t, states]
    state = len(states) - 1 if best[-1] >= best[-2] else len(states) - 2
    if best[state] == -np.inf:
        return None
    frames = [0] * len(tokens)
    for t in range(len(scores) - 1, -1, -1):
        if state % 2:
            frames[state // 2] = t
        state -= int(steps[t, state])
    return frames
