"""The whole engine against NeMo's offline answers: mel, encoder, decoder, batch, joins and leaves."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from nemostream.model import Model
from nemostream.models.bundle import Bundle
from nemostream.protocol import Samples
from tests.engine.driver import Driver, load
from tests.golden.make_golden import UTTERANCES
from tests.speech import utterance

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def models(toy_bundle: Bundle, random_bundle: Bundle) -> dict[str, Model]:
    return {"toy": load(toy_bundle.path), "random": load(random_bundle.path)}


@pytest.mark.parametrize("decoder", ["rnnt", "ctc"])
@pytest.mark.parametrize(
    ("name", "lookahead"), [*(("toy", n) for n in (0, 1, 6, 13)), *(("random", n) for n in (0, 1, 3, 6, 13))]
)
def test_tokens_and_frames_equal_nemo_on_100_utterances(
    models: dict[str, Model], name: str, lookahead: int, decoder: str
) -> None:
    golden = np.load(DATA / f"golden_{name}.npz")
    assert compare(models[name], golden, decoder, lookahead) > 300


@functools.cache
def spoken(first_seed: int) -> list[Samples]:
    return [utterance(first_seed + u)[1] for u in range(UTTERANCES)]


def compare(model: Model, golden: Mapping[str, np.ndarray], decoder: str, lookahead: int, first_seed: int = 0) -> int:
    """All utterances of a golden file: streams start at different ticks, share one batch, and leave when their audio
    ends. Returns the number of tokens, all of them equal to NeMo's, at the same frames."""
    key = f"{decoder}.{lookahead}"
    bounds = np.cumsum(golden[f"{key}.counts"])[:-1]
    ids, frames = np.split(golden[f"{key}.ids"], bounds), np.split(golden[f"{key}.frames"], bounds)
    driver = Driver(model, chunk_ms=80 * (lookahead + 1), decoder=decoder, max_streams=UTTERANCES)
    audio = dict(enumerate(spoken(first_seed)))
    block = 80 * 16 * (lookahead + 1)
    rng = np.random.default_rng(lookahead)
    waiting = list(audio)
    at: dict[int, int] = {}
    while waiting or at:
        for u in waiting[: int(rng.integers(0, 12))]:
            driver.open(u)
            waiting.remove(u)
            at[u] = 0
        for u in at:
            driver.push(u, audio[u][at[u] : at[u] + block], run=False)
            at[u] += block
        driver.run()
        for u in [u for u in at if at[u] >= len(audio[u])]:
            driver.close(u, drain=False)
            del at[u]
    for u in audio:
        assert [t.id for t in driver.tokens[u]] == ids[u].tolist(), u
        assert [t.frame for t in driver.tokens[u]] == frames[u].tolist(), u
    return sum(map(len, ids))
