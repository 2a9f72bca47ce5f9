"""A step commits, or it does not: wherever it fails, the next try finds everything as it was."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import pytest

from nemostream.encoders import Arrays, Floats, Indices, Places
from nemostream.group import Group
from nemostream.model import Model
from nemostream.protocol import Failed
from tests.engine.conftest import utterance
from tests.engine.driver import Driver

STREAMS = 8
BAD = 3
PLACES = ["before the encoder", "after the encoder", "within decoding", "after decoding", "before the commit"]

Chooser = Callable[[list[Hashable]], bool]


class Faults:
    """Stands between a group and its encoder and decoders; in the tries that `chosen` picks it raises at `place`.

    `chosen` gets the owners of the rows in the batch. Every try that fails is checked to leave no trace in any row;
    what it left is in `traces`.
    """

    def __init__(self, group: Group, place: str, chosen: Chooser) -> None:
        self.failures = 0
        self.traces: list[str] = []
        self._group, self._place, self._chosen = group, place, chosen
        self._failing = False
        self._decoding = 0
        self._step = group._step
        group._step = self._checked  # type: ignore[method-assign]
        group._encoder = _Encoder(group._encoder, self)  # type: ignore[assignment]
        group._decoders = {n: _Decoder(d, self) for n, d in group._decoders.items()}  # type: ignore[misc]

    def begin(self, rows: int | Indices) -> None:
        index = range(int(rows)) if isinstance(rows, int) else rows.tolist()
        self._failing = self._chosen([self._group.rows.owner(row) for row in index])
        self._decoding = 0

    def at(self, place: str) -> None:
        """Raises if this is the place. Within decoding: when one decoder has decoded, and the other has not."""
        self._decoding += place == "within decoding"
        if self._failing and place == self._place and (place != "within decoding" or self._decoding == 2):
            self.failures += 1
            raise RuntimeError("injected")

    def _checked(self, *step: Any) -> Any:
        before = self._picture()
        try:
            return self._step(*step)
        except RuntimeError:
            after = self._picture()
            self.traces += [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
            raise

    def _picture(self) -> dict[str, object]:
        """All rows as bytes, and what is saved."""
        group, found = self._group, dict[str, object]()
        for row, owner in enumerate(group.rows.owners()):
            exported: Arrays = {**group._encoder.export(row), **group._decoder(row).export(row)}
            found |= {f"{owner} {name}": array.tobytes() for name, array in exported.items()}
        return found | {f"saved {owner}": id(saved) for owner, saved in group._saved.items()}


class _Between:
    def __init__(self, real: Any, faults: Faults) -> None:
        self._real, self._faults = real, faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class _Encoder(_Between):
    def step(self, rows: int | Indices, mel: Floats, prompts: Places) -> Floats:
        self._faults.begin(rows)
        self._faults.at("before the encoder")
        encoded: Floats = self._real.step(rows, mel, prompts)
        self._faults.at("after the encoder")
        return encoded

    def commit(self, *args: Any) -> None:
        self._faults.at("before the commit")
        self._real.commit(*args)


class _Decoder(_Between):
    def step(self, *args: Any) -> Any:
        self._faults.at("within decoding")
        tokens = self._real.step(*args)
        self._faults.at("after decoding")
        return tokens


def talk(model: Model, chunk_ms: int, place: str = "", chosen: Chooser | None = None) -> tuple[Any, ...]:
    """Eight streams in one batch, RNN-T and CTC in turn, three of which flush within words; returns the driver and the
    faults, if any."""
    driver = Driver(model, chunk_ms=chunk_ms, peek=True, max_streams=STREAMS)
    for i in range(STREAMS):
        driver.open(i, decoder=("rnnt", "ctc")[i % 2])
    faults = Faults(next(iter(driver.core.groups.values())), place, chosen) if chosen else None
    audio = [utterance(40 + i, 2 if chunk_ms < 500 else 3) for i in range(STREAMS)]  # for steps enough
    block = 1600
    for tick, start in enumerate(range(0, max(map(len, audio)), block)):
        for i in range(STREAMS):
            if start < len(audio[i]):
                driver.push(i, audio[i][start : start + block], run=False)
            if i % 3 == 1 and tick % 5 == i % 5:
                driver.flush(i, tick, run=False)
        driver.now += 0.1
        driver.run()
    for i in range(STREAMS):
        driver.close(i)
    return driver, faults


def heard(driver: Driver, stream: int) -> tuple[Any, ...]:
    """Tokens with their frames, and the Finals; not confidences, whose last bits a smaller batch may move."""
    tokens = [(t.id, t.frame) for t in driver.tokens[stream]]
    return tokens, [(f.text, f.start_sample, f.end_sample, f.reason, f.flush_id) for f in driver.finals(stream)]


@pytest.fixture(scope="module")
def undisturbed(toy: Model) -> dict[int, list[tuple[Any, ...]]]:
    """What is heard without faults, by chunk size."""
    found = {}
    for chunk_ms in (80, 560):
        driver, _ = talk(toy, chunk_ms)
        found[chunk_ms] = [heard(driver, i) for i in range(STREAMS)]
        assert all(tokens for tokens, _ in found[chunk_ms])
        assert sum(final[-1] is not None for _, finals in found[chunk_ms] for final in finals) > 6
    return found


def every_first() -> Chooser:
    """The first try of every step."""
    tries = iter(range(1_000_000))
    return lambda owners: next(tries) % 2 == 0


def every_other() -> Chooser:
    """Every second try at random, but no row alone twice in succession: it would be given up."""
    rng = np.random.default_rng(0)
    alone = False

    def chosen(owners: list[Hashable]) -> bool:
        nonlocal alone
        failing = bool(rng.random() < 0.5) and not (alone and len(owners) == 1)
        alone = failing and len(owners) == 1
        return failing

    return chosen


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("chosen", "chunk_ms"), [(every_first, 80), (every_other, 560)])
def test_failing_tries_change_no_token_and_no_final(
    toy: Model, undisturbed: Any, place: str, chosen: Callable[[], Chooser], chunk_ms: int
) -> None:
    driver, faults = talk(toy, chunk_ms, place, chosen())
    assert faults.traces == []
    assert faults.failures > 4 and next(iter(driver.core.groups.values())).counters.retries
    assert [heard(driver, i) for i in range(STREAMS)] == undisturbed[chunk_ms]


@pytest.mark.parametrize("place", [place for place in PLACES if place != "within decoding"])
def test_a_row_that_always_fails_ends_alone(toy: Model, undisturbed: Any, place: str) -> None:
    tries = 0

    def chosen(owners: list[Hashable]) -> bool:
        nonlocal tries
        tries += 1
        return tries > 4 and ("driver", BAD) in owners

    driver, faults = talk(toy, 560, place, chosen)
    assert faults.traces == []
    (failed,) = driver.of(BAD, Failed)
    assert failed.code == "StepFailed" and "injected" in failed.message and "\n" not in failed.message
    others = [i for i in range(STREAMS) if i != BAD]
    assert not any(driver.of(i, Failed) for i in others)
    assert [heard(driver, i) for i in others] == [undisturbed[560][i] for i in others]


def test_a_commit_that_cannot_put_a_row_back_writes_nothing(toy: Model) -> None:
    rows = toy.backend.rows(2, 2, 2)
    mel = np.random.default_rng(0).standard_normal((2, 16, toy.mel.n_mels)).astype(np.float32)
    saved = rows.save(1)
    for _ in range(2):
        rows.step(2, mel)
        rows.commit(np.array([1]))
    before = [rows.export(row) for row in (0, 1)]
    rows.step(2, mel)
    with pytest.raises(ValueError, match="can go back 2"):
        rows.commit(np.array([0]), [(1, saved)])
    for row in (0, 1):
        after = rows.export(row)
        assert all(np.array_equal(after[name], array) for name, array in before[row].items())
