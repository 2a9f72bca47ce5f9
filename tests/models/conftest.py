"""Both models beside NeMo's answers for them (tests/golden/make_golden.py)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from nemostream.encoders import Floats
from nemostream.models.bundle import Bundle
from nemostream.models.heads import ConformerModel
from tests.conftest import DATA

ENCODER_UTTERANCES = 3
Tokens = list[list[tuple[int, int]]]


@dataclass(frozen=True)
class Golden:
    """A model and what NeMo 3.0.0 makes of the same input."""

    nemo: Path
    bundle: Bundle
    answers: dict[str, np.ndarray]

    @property
    def lookaheads(self) -> list[int]:
        return [int(lookahead) for lookahead in self.answers["lookaheads"]]

    @property
    def mels(self) -> list[Floats]:
        return [self.answers[f"mel.{u}"] for u in range(ENCODER_UTTERANCES)]

    def encoded(self, lookahead: int) -> list[Floats]:
        return [self.answers[f"enc.{u}.{lookahead}"] for u in range(ENCODER_UTTERANCES)]

    def tokens(self, decoder: str, lookahead: int) -> Tokens:
        """(id, frame) pairs of utterances 0..99."""
        key = f"{decoder}.{lookahead}"
        pairs = list(zip(self.answers[f"{key}.ids"].tolist(), self.answers[f"{key}.frames"].tolist(), strict=True))
        ends = np.cumsum(self.answers[f"{key}.counts"].astype(int)).tolist()
        return [pairs[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    def model(self) -> ConformerModel:
        from nemostream.models.checkpoint import read_checkpoint

        return read_checkpoint(self.nemo).model()


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Products this small are done before a second thread has begun, and on a busy machine each waits for the other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", params=["toy", "random"])
def golden(request: pytest.FixtureRequest) -> Golden:
    with np.load(DATA / f"golden_{request.param}.npz") as answers:
        return Golden(
            request.getfixturevalue(f"{request.param}_nemo"),
            request.getfixturevalue(f"{request.param}_bundle"),
            dict(answers),
        )
