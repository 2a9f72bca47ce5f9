"""An engine that is lost at any moment: the streams' owners hear every final once, as if nothing had happened."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemostream import seat, snapshot
from nemostream.errors import EngineLost, SnapshotError
from nemostream.feed import Feed
from nemostream.inbox import Options
from nemostream.ledger import LIMIT
from nemostream.model import Model
from nemostream.protocol import (
    SAMPLE_RATE,
    Checkpoint,
    Close,
    Ended,
    Endpointing,
    Failed,
    Final,
    Flush,
    Gap,
    Message,
    Mute,
    Open,
    Push,
    Refused,
    Unmute,
    Update,
    Usage,
)
from nemostream.switchboard import Switchboard
from nemostream.vad import WINDOW
from tests.engine.conftest import utterance
from tests.examples import examples
from tests.remote.rig import Rig

BLOCK = 1280


def script(rng: np.random.Generator, stream: int, samples: np.ndarray, block: int = BLOCK) -> list[Message]:
    """A stream's messages: audio in blocks, and now and then something else."""
    messages: list[Message] = []
    at = 0
    for start in range(0, len(samples), block):
        part = samples[start : start + block]
        messages.append(Push(stream, part, at))
        at += len(part)
        chance = rng.random()
        if chance < 0.04:
            messages.append(Flush(stream, len(messages)))
        elif chance < 0.06:
            gap = int(rng.integers(1, 20_000))
            messages.append(Gap(stream, gap))
            at += gap
        elif chance < 0.08:
            messages += [Mute(stream), Unmute(stream)]
        elif chance < 0.10:
            messages.append(Update(stream, Endpointing(blank_ms=int(rng.integers(1, 6)) * 80)))
    return [*messages, Close(stream)]


def heard(rig: Rig, stream: int) -> list[tuple[object, ...]]:
    """The finals that say something, or that were asked for; not the last bits of a probability, which a batch's size
    moves."""
    return [
        (
            f.text,
            [(w.text, w.start_sample, w.end_sample) for w in f.words],
            f.start_sample,
            f.end_sample,
            f.reason,
            f.flush_id,
        )
        for f in rig.finals(stream)
        if f.text or f.flush_id is not None
    ]


@pytest.mark.parametrize("chunk_ms", [80, 160, 560, 1120])
@settings(max_examples=examples(3, 4), deadline=None)
@given(
    seed=st.integers(0, 10_000), losses=st.integers(1, 6), vad=st.booleans(), decoder=st.sampled_from(["rnnt", "ctc"])
)
def test_losing_the_engine_at_any_moment_changes_no_final(
    toy: Model, chunk_ms: int, seed: int, losses: int, vad: bool, decoder: str
) -> None:
    """Three streams with flushes, gaps and mutes; messages and events on their way are lost with it."""
    opened = Open(0, chunk_ms=chunk_ms, decoder=decoder, endpointing=Endpointing(vad_ms=300 if vad else None))  # type: ignore[arg-type]
    check_losses(toy, opened, {i: utterance(seed + i, 6) for i in range(3)}, seed, losses)


@pytest.mark.parametrize("chunk_ms", [80, 1120])
@settings(max_examples=examples(3, 4), deadline=None)
@given(seed=st.integers(0, 10_000), losses=st.integers(1, 6), vad=st.booleans())
@pytest.mark.usefixtures("loud_is_speech")
def test_losing_the_engine_while_silence_is_skipped_changes_no_final(
    toy: Model, chunk_ms: int, seed: int, losses: int, vad: bool
) -> None:
    """The same, and long pauses between words."""
    opened = Open(0, chunk_ms=chunk_ms, endpointing=Endpointing(vad_ms=300 if vad else None), skip_silence=True)
    pause = np.zeros(3 * SAMPLE_RATE, np.float32)
    talks = {
        i: np.concatenate([part for n in range(3) for part in (pause, utterance(seed + 3 * i + n, 2))])
        for i in range(3)
    }
    check_losses(toy, opened, talks, seed, losses)


def check_losses(model: Model, opened: Open, talks: dict[int, np.ndarray], seed: int, losses: int) -> None:
    """Finals are those of an engine that was not lost."""
    rng = np.random.default_rng(seed)
    scripts = {i: script(rng, i, talk) for i, talk in talks.items()}
    order = rng.permutation([i for i, messages in scripts.items() for _ in messages]).tolist()
    lose_at = set(rng.integers(0, len(order), losses).tolist())
    runs = []
    for disturbed in (False, True):
        left = {i: iter(messages) for i, messages in scripts.items()}
        rig = Rig(model, peek=True)
        random = np.random.default_rng(seed + 1)
        for i in scripts:
            rig.send(dataclasses.replace(opened, stream=i))
        for n, i in enumerate(order):
            lost = disturbed and n in lose_at
            rig.send(next(left[i]), arrives=not lost)
            rig.run(int(random.integers(0, 4)) if lost else None, read=not lost)
            if lost:
                rig.lose()
                rig.run()
        rig.run()
        runs.append(rig)
    undisturbed, disturbed_run = runs
    assert disturbed_run.losses
    for i in scripts:
        assert heard(disturbed_run, i) == heard(undisturbed, i)
        assert all(f.whole for f in disturbed_run.finals(i))
        used = [sum(e.samples for e in rig.events[i] if isinstance(e, Usage)) for rig in runs]
        assert used[0] == used[1]


def test_a_replay_begins_at_the_last_checkpoint(toy: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is heard again is bounded by the time between two checkpoints, not by the stream's length."""
    rig = Rig(toy)
    rig.send(Open(1, chunk_ms=160))
    samples = np.concatenate([utterance(i) for i in range(12)])
    for start in range(0, len(samples), BLOCK):
        rig.send(Push(1, samples[start : start + BLOCK], start))
        rig.run()
    opened, *rest = rig._board.replay()
    assert isinstance(opened, Open) and opened.resume
    assert sum(len(m.samples) for m in rest if isinstance(m, Push)) <= seat.CHECKPOINT_SAMPLES + 4 * BLOCK


def test_a_final_that_came_of_silence_is_not_given_again(toy: Model) -> None:
    """The source fell silent in the middle of a word: the clock made that final, no message did."""
    samples = utterance(5, 6)
    half = len(samples) // 2 // BLOCK * BLOCK
    texts = []
    for disturbed in (False, True):
        rig = Rig(toy)
        rig.send(Open(1, chunk_ms=160, endpointing=Endpointing(blank_ms=None)))
        for start in range(0, half, BLOCK):
            rig.send(Push(1, samples[start : start + BLOCK], start))
        rig.run()
        rig.now += 3.0
        rig.run()
        assert [f.reason for f in rig.finals(1)] == ["idle"]
        if disturbed:
            rig.lose()
            rig.run()
        rig.send(Push(1, samples[half:], half))
        rig.send(Close(1))
        rig.run()
        texts.append([f.text for f in rig.finals(1)])
    assert texts[0] == texts[1] and len(texts[0]) == 2


def test_interims_do_not_go_back_while_a_replay_catches_up(toy: Model) -> None:
    samples = utterance(7, 6)
    rig = Rig(toy)
    rig.send(Open(1, chunk_ms=80, endpointing=Endpointing(blank_ms=None)))
    rig.send(Push(1, samples, 0))
    rig.run()
    shown = [e for e in rig.events[1] if hasattr(e, "words")]
    rig.lose()
    rig.run()
    assert [e for e in rig.events[1] if hasattr(e, "words")] == shown


def test_audio_that_was_given_up_is_reported(toy: Model) -> None:
    """No engine for longer than the ledger keeps: the next final says that it may not be whole, and only that one."""
    rig = Rig(toy)
    rig.send(Open(1, chunk_ms=160, endpointing=Endpointing(blank_ms=None)))
    samples = np.concatenate([utterance(i) for i in range(30)])[: LIMIT["live"] + 5 * 16_000]
    for start in range(0, len(samples), BLOCK):
        rig.send(Push(1, samples[start : start + BLOCK], start), arrives=False)
    rig.lose()
    rig.run()
    rig.send(Flush(1, 1))
    rig.run()
    rig.send(Push(1, utterance(40), len(samples)))
    rig.send(Flush(1, 2))
    rig.run()
    wholes = [(f.flush_id, f.whole) for f in rig.finals(1) if f.text]
    assert [w for _, w in wholes].count(False) == 1 and not wholes[0][1], wholes
    assert abs(rig.finals(1)[-1].end_sample - len(samples) - len(utterance(40))) < 16_000, (
        "the clock counts what was lost"
    )


def test_a_stream_that_the_next_engine_cannot_take_fails_and_may_be_opened_again(toy: Model, toy_int8: Model) -> None:
    """Another bundle or precision: the state does not fit, and the owner is told."""
    rig = Rig(toy)
    rig.send(Open(1, chunk_ms=160))
    samples = np.concatenate([utterance(i) for i in range(8)])
    for start in range(0, len(samples), BLOCK):
        rig.send(Push(1, samples[start : start + BLOCK], start))
        rig.run()
    rig.model = toy_int8
    rig.lose()
    rig.run()
    last = rig.events[1][-1]
    assert isinstance(last, Failed) and last.code == EngineLost.__name__ and last.retryable
    assert "precision" in last.message and len(rig._board) == 0


def test_a_snapshot_that_was_tampered_with_is_refused(toy: Model) -> None:
    rig = Rig(toy)
    rig.send(Open(1, chunk_ms=160))
    for start in range(0, 160_000, BLOCK):
        rig.send(Push(1, utterance(1, 20)[start : start + BLOCK], start))
        rig.run()
    opened = rig._board.replay()[0]
    assert isinstance(opened, Open) and opened.resume is not None
    rng = np.random.default_rng(0)
    refused, neighbour = 0, utterance(2, 1)
    for _ in range(40):
        data = bytearray(opened.resume)
        if rng.random() < 0.5:
            data = data[: int(rng.integers(len(data)))]
        else:
            data[int(rng.integers(2_000))] ^= int(rng.integers(1, 256))
        other = Rig(toy)
        other.core.handle("client", dataclasses.replace(opened, stream=9, resume=bytes(data)))
        other.core.handle("client", Open(10))
        other.core.handle("client", Push(10, neighbour, 0))
        other.core.handle("client", Push(9, utterance(2), 0))
        other.core.handle("client", Close(10))
        other.run(read=False)
        events = other.core.take_events()["client"]
        told = [e for e in events if e.stream == 9 and isinstance(e, Refused)]
        refused += bool(told)
        assert all(e.code == SnapshotError.__name__ for e in told)
        assert [e.text for e in events if e.stream == 10 and isinstance(e, Final)], "the neighbour is not harmed"
    assert refused >= 20


def test_only_recoverable_streams_are_saved(toy: Model) -> None:
    rig = Rig(toy)
    rig.core.handle("plain", Open(1, chunk_ms=160))
    for start in range(0, 200_000, BLOCK):
        rig.core.handle("plain", Push(1, np.zeros(BLOCK, np.float32), start))
        rig.run(read=False)
    assert not any(isinstance(e, Checkpoint) for e in rig.core.take_events()["plain"])


def test_numbers_on_the_wire_are_never_used_twice() -> None:
    board = Switchboard()
    wires = []
    for _ in range(3):
        ((opened,), _) = board.send(1, Open(7))
        wires.append(opened.stream)
        ((closed,), _) = board.send(1, Close(7))
        assert closed.stream == opened.stream
        board.leave(1)
    assert len(set(wires)) == 3 and len(board) == 0


def test_a_resume_changes_nothing_that_waits(toy: Model) -> None:
    """The rest of a detector's window waits on; a change of endpointing behind it would let it pass unheard."""
    rig, other = Rig(toy), Rig(toy)
    opened = Open(1, chunk_ms=160, endpointing=Endpointing(blank_ms=None, vad_ms=200))
    rig.core.handle("client", opened)
    rig.core.handle("client", Push(1, utterance(3)[:20_300], 0))
    rig.run(read=False)
    before = rig.core.snapshot(("client", 1))
    other.core.handle("client", dataclasses.replace(opened, resume=snapshot.encode(before)))
    after = other.core.snapshot(("client", 1))
    waiting = [[len(p.samples) for p in s.feed.unjudged if p.samples is not None] for s in (before, after)]
    assert waiting[0] == waiting[1] == [20_300 % 512]
    assert before.feed.heard == after.feed.heard and not [p for p in after.feed.unjudged if p.change]


@pytest.mark.parametrize(("vad_ms", "block"), [(None, BLOCK), (300, BLOCK), (300, 5 * WINDOW)])
@settings(max_examples=examples(4, 10), deadline=None)
@given(seed=st.integers(0, 10_000), runs=st.lists(st.integers(1, 60), min_size=1, max_size=6))
def test_an_engine_that_is_late_and_lost_loses_nothing(
    toy: Model, vad_ms: int | None, block: int, seed: int, runs: list[int]
) -> None:
    """All audio came at once, in blocks, with requests between them; the engine dies again and again on its way through
    it, and what a checkpoint leaves to the client is sent again."""
    rng = np.random.default_rng(seed)
    messages = script(rng, 1, np.concatenate([utterance(seed + i, 6) for i in range(3)])[: 18 * SAMPLE_RATE], block)
    rigs = []
    for losses in ([], runs):
        rig = Rig(toy)
        rig.send(Open(1, chunk_ms=160, endpointing=Endpointing(vad_ms=vad_ms)))
        for message in messages:
            rig.send(message)
        for steps in losses:
            rig.run(steps)
            rig.lose()
        rig.run()
        rigs.append(rig)
    undisturbed, disturbed = rigs
    assert heard(disturbed, 1) == heard(undisturbed, 1) and all(f.whole for f in disturbed.finals(1))
    assert isinstance(disturbed.events[1][-1], Ended)
    used = [sum(e.samples for e in rig.events[1] if isinstance(e, Usage)) for rig in rigs]
    assert used[0] == used[1]


def test_a_checkpoint_leaves_out_what_waits(toy: Model) -> None:
    """An engine that is late must not be made later: what nobody has got to is not saved, up to five seconds of it; and
    a stream that catches up is saved every second of its first twenty, any other every five."""
    rig = Rig(toy)
    rig.send(Open(1, chunk_ms=160))
    blocks = iter(range(0, 60 * SAMPLE_RATE, BLOCK))
    noise = (0.01 * np.random.default_rng(0).standard_normal(60 * SAMPLE_RATE)).astype(np.float32)

    def wait(seconds: int) -> list[tuple[float, float]]:
        """Let so much audio wait, then run: what each checkpoint held that waited, and heard, in seconds."""
        for _ in range(seconds * SAMPLE_RATE // BLOCK):
            at = next(blocks)
            rig.send(Push(1, noise[at : at + BLOCK], at))
        saved = []
        while rig.core.step():
            for event in rig.core.take_events().get("client", []):
                if isinstance(event, Checkpoint):
                    feed = snapshot.decode(event.snapshot).feed
                    held = sum(len(part.samples) for part in feed.inbox if part.samples is not None)
                    saved.append((held / SAMPLE_RATE, feed.heard / SAMPLE_RATE))
                rig._board.take([event])
        return saved

    new = wait(12)
    assert [held > 0.08 for held, at in new] == [at < 7 for _, at in new], "from 12 - 5 s on all that waits is left out"
    assert {round(later - earlier) for (_, earlier), (_, later) in itertools.pairwise(new)} == {1}
    while rig.core.snapshot(("client", 1)).feed.heard < 21 * SAMPLE_RATE:
        wait(1)
    old = wait(12)
    assert {round(later - earlier) for (_, earlier), (_, later) in itertools.pairwise(old)} <= {5} and len(old) > 1


def test_what_the_detector_has_heard_is_not_left_out(toy: Model) -> None:
    """It would hear it again, behind what it knows already."""
    feed = Feed(toy.mel, 2, Options(Endpointing(vad_ms=300)))
    feed.push(np.zeros(60 * WINDOW, np.float32))
    assert feed.tail == 60 * WINDOW
    while feed.window_ready:
        feed.judged(feed.take_window(), False)
    assert feed.waiting > 5 * WINDOW and feed.tail == 0
    feed.push(np.zeros(100, np.float32))
    assert feed.tail == 100
