"""The toy model, loaded, and what it understands."""

from __future__ import annotations

import numpy as np
import pytest

from nemostream.model import Model
from nemostream.models.bundle import Bundle
from nemostream.protocol import Samples
from tests.engine.driver import Driver, load
from tests.speech import WORDS, synth


@pytest.fixture(scope="session")
def toy(toy_bundle: Bundle) -> Model:
    return load(toy_bundle.path, "fp32")


@pytest.fixture(scope="session")
def toy_int8(toy_bundle: Bundle) -> Model:
    return load(toy_bundle.path, "int8")


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
