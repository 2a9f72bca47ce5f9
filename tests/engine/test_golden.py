"""The whole engine against NeMo's offline answers: mel, encoder, decoder, batch, joins and leaves."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from nemostream.model import Model
from nemostream.models.bundle import Bundle
from nemostream.protocol import Samples
from tests.engine.driver import Driver, load
from tests.random_model import KINDS
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


@pytest.mark.parametrize("name", [name for name in KINDS if name != "hybrid"])
def test_every_architecture_gives_nemos_tokens(kind_bundle: Callable[[str], Bundle], name: str) -> None:
    """Pure RNN-T and pure CTC, one and two LSTM layers, 80 and 128 mels, 130 to 13,000 pieces, ends of utterances, and
    language prompts, with streams of all languages in one batch."""
    model = load(kind_bundle(name).path)
    with np.load(DATA / f"golden_{name}.npz") as golden:
        assert compare_kind(model, dict(golden)) > 100


def compare_kind(model: Model, golden: Mapping[str, np.ndarray], first_seed: int = 0) -> int:
    """All that a golden file of a kind holds; returns the number of tokens."""
    keys = [key.removesuffix(".counts").split(".") for key in golden if key.endswith(".counts")]
    groups = {
        (decoder, lookahead): [k[2:] for k in keys if k[:2] == [decoder, lookahead]] for decoder, lookahead, *_ in keys
    }
    return sum(
        compare(model, golden, decoder, int(lookahead), first_seed, ["".join(language) for language in languages])
        for (decoder, lookahead), languages in groups.items()
    )


@functools.cache
def spoken(first_seed: int, count: int) -> list[Samples]:
    return [utterance(first_seed + u)[1] for u in range(count)]


def compare(
    model: Model,
    golden: Mapping[str, np.ndarray],
    decoder: str,
    lookahead: int,
    first_seed: int = 0,
    languages: Sequence[str] = ("",),
) -> int:
    """All utterances of a golden file, in each of the languages: streams start at different ticks, share one batch, and
    leave when their audio ends. Returns the number of tokens, all of them equal to NeMo's, at the same frames."""
    ids: list[np.ndarray] = []
    frames: list[np.ndarray] = []
    audio: list[Samples] = []
    asked: list[str | None] = []
    for language in languages:
        key = f"{decoder}.{lookahead}" + (f".{language}" if language else "")
        counts = golden[f"{key}.counts"]
        ids += np.split(golden[f"{key}.ids"], np.cumsum(counts)[:-1])
        frames += np.split(golden[f"{key}.frames"], np.cumsum(counts)[:-1])
        audio += spoken(first_seed, len(counts))
        asked += [language or None] * len(counts)
    driver = Driver(model, chunk_ms=80 * (lookahead + 1), decoder=decoder, max_streams=len(audio))
    block = 80 * 16 * (lookahead + 1)
    rng = np.random.default_rng(lookahead)
    waiting = list(range(len(audio)))
    at: dict[int, int] = {}
    while waiting or at:
        for u in waiting[: int(rng.integers(0, 12))]:
            driver.open(u, language=asked[u])
            waiting.remove(u)
            at[u] = 0
        for u in at:
            driver.push(u, audio[u][at[u] : at[u] + block], run=False)
            at[u] += block
        driver.run()
        for u in [u for u in at if at[u] >= len(audio[u])]:
            driver.close(u, drain=False)
            del at[u]
    for u in range(len(audio)):
        assert [t.id for t in driver.tokens[u]] == ids[u].tolist(), u
        assert [t.frame for t in driver.tokens[u]] == frames[u].tolist(), u
    return sum(map(len, ids))
