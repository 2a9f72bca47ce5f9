"""The whole engine against NeMo's offline answers: mel, encoder, decoder, batch, joins and leaves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nemostream.models.bundle import Bundle
from tests.engine.driver import Driver, load
from tests.golden.make_golden import UTTERANCES
from tests.speech import utterance

DATA = Path(__file__).parents[1] / "data"


@pytest.mark.parametrize("decoder", ["rnnt", "ctc"])
@pytest.mark.parametrize("lookahead", [0, 1, 6, 13])
@pytest.mark.parametrize("name", ["toy", "random"])
def test_tokens_and_frames_equal_nemo_on_100_utterances(
    name: str, lookahead: int, decoder: str, request: pytest.FixtureRequest
) -> None:
    """Streams start at different ticks, share one batch, and leave when their audio ends."""
    bundle: Bundle = request.getfixturevalue(f"{name}_bundle")
    golden = np.load(DATA / f"golden_{name}.npz")
    key = f"{decoder}.{lookahead}"
    bounds = np.cumsum(golden[f"{key}.counts"])[:-1]
    ids, frames = np.split(golden[f"{key}.ids"], bounds), np.split(golden[f"{key}.frames"], bounds)
    driver = Driver(load(bundle.path), chunk_ms=80 * (lookahead + 1), decoder=decoder)
    audio = {u: utterance(u)[1] for u in range(UTTERANCES)}
    block = 80 * 16 * (lookahead + 1)
    rng = np.random.default_rng(lookahead)
    waiting, at = list(audio), dict.fromkeys(audio, 0)
    while waiting or len(driver.core):
        for u in waiting[: int(rng.integers(0, 12))]:
            driver.open(u)
            waiting.remove(u)
        for u in [u for u in audio if u not in waiting and at[u] < len(audio[u])]:
            driver.push(u, audio[u][at[u] : at[u] + block], run=False)
            at[u] += block
        driver.run()
        for u in [u for u in audio if u not in waiting and block <= len(audio[u]) <= at[u] < 10**9]:
            driver.close(u, drain=False)
            at[u] = 10**9
    for u in audio:
        got = driver.tokens[u]
        assert [t.id for t in got] == ids[u].tolist(), u
        assert [t.frame for t in got] == frames[u].tolist(), u
    assert sum(map(len, ids)) > 300
