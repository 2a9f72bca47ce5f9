"""The toy model, loaded, and what it understands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch

from nemostream.model import Model
from nemostream.models.bundle import Bundle
from nemostream.protocol import Samples
from nemostream.vad import CONTEXT, Ear, Vad
from tests.engine.driver import Driver, load
from tests.speech import WORDS, synth


@pytest.fixture(scope="session")
def toy(toy_bundle: Bundle) -> Model:
    return load(toy_bundle.path, "fp32")


@pytest.fixture(scope="session")
def toy_int8(toy_bundle: Bundle) -> Model:
    return load(toy_bundle.path, "int8")


@pytest.fixture(scope="session")
def device(toy_bundle: Bundle) -> Model:
    """The toy on a device's code path, on this machine's CPU."""
    # Products this small are done before a second thread has begun, and on a busy machine each waits for the other.
    torch.set_num_threads(1)
    return Model.load(toy_bundle.path, "fp32", 1, "torch")


def utterance(seed: int, words: int = 5) -> Samples:
    """Tone words from a seed, with short pauses between."""
    rng = np.random.RandomState(seed)
    return synth([WORDS[i] for i in rng.randint(0, len(WORDS), words)], rng)


def offline(model: Model, samples: Samples, **opened: object) -> str:
    """The text of a stream that is alone, gets everything in one push, and is never interrupted."""
    driver = Driver(model, max_streams=1, **opened)
    driver.open(0)
    driver.push(0, samples)
    driver.close(0)
    return driver.text(0)


@pytest.fixture(scope="module")
def loud_is_speech() -> Iterator[None]:
    """Silero takes tones for no speech: a detector that hears any loud sound, a window late as Silero may be."""

    def judge(vad: Vad, ears: Sequence[Ear], windows: Sequence[Samples]) -> list[bool]:
        endpoints = []
        for ear, window in zip(ears, windows, strict=True):
            loud = bool(np.abs(ear.context).max() > 0.02)
            ear.state, ear.context = ear.state + 1, window[-CONTEXT:]
            endpoints.append(ear.judge(0.9 if loud else 0.1))
        return endpoints

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Vad, "_judge", judge)
        yield
