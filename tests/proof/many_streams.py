"""An hour of audio through 256 streams that join, flush, mute and leave: nothing lost, nothing doubled, memory flat."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np

from tests.conftest import DATA, converted
from tests.engine.conftest import offline, utterance
from tests.engine.driver import Driver, load
from tests.words import changes

SOURCES = ["plugin/nemostream/*.py", "plugin/nemostream/encoders/*.py"]
STREAMS, BLOCK = 256, 1280


def run() -> dict[str, object]:
    """Every stream speaks one utterance; a third is flushed once, a third muted once, all at random moments."""
    model = load(converted(Path(DATA / "toy.nemo")).path)
    rng = np.random.default_rng(0)
    pool = [utterance(seed, 8) for seed in range(64)]
    expected = [offline(model, samples, chunk_ms=160) for samples in pool]
    driver = Driver(model, chunk_ms=160, max_streams=STREAMS)
    alive: dict[int, list[int]] = {}  # stream: which utterance, samples pushed, disturbed at
    opened = changed = audio = 0
    rss_early = 0
    while audio < 3600 * 16_000 or alive:
        while len(alive) < STREAMS and audio < 3600 * 16_000 and rng.random() < 0.7:
            which = int(rng.integers(len(pool)))
            at = int(rng.integers(len(pool[which]))) if opened % 3 else -1
            driver.open(opened)
            alive[opened] = [which, 0, at]
            opened += 1
        for stream, state in list(alive.items()):
            which, at, disturb = state
            samples = pool[which]
            if at >= len(samples):
                driver.close(stream)
                words, got = expected[which].split(), driver.text(stream).split()
                lost, added = changes(words, got)
                assert lost <= (disturb >= 0) and added <= 2 * (disturb >= 0), (words, got)
                changed += max(lost, added)
                del alive[stream], driver.events[stream], driver.tokens[stream]
                continue
            driver.push(stream, samples[at : at + BLOCK], run=False)
            state[1] += BLOCK
            audio += BLOCK
            if 0 <= disturb < state[1] and disturb >= at:
                if stream % 3 == 1:
                    driver.flush(stream, 1, run=False)
                else:
                    driver.mute(stream)
        driver.now += BLOCK / 16_000
        driver.run()
        if not rss_early and audio > 1800 * 16_000:
            rss_early = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - rss_early
    assert grown < 50_000, f"memory grew by {grown} kB"
    assert len(driver.core) == 0
    return {
        "streams": opened,
        "hours": round(audio / 16_000 / 3600, 2),
        "encoder_calls": driver.calls,
        "words_that_span_a_flush_and_differ": changed,
        "memory_grown_kb": grown,
    }
