"""Notes in an engine's process what its steps did: how long each took, when a chunk's events were out, the tokens.

python -m bench.engine.tap NOTES.npz serve --socket ...      # `nemostream serve`, with notes

Nothing is computed differently: three methods are wrapped. Times are time.monotonic(), one clock for all processes of
a machine.
"""

from __future__ import annotations

import sys
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nemostream.engine import Engine
from nemostream.greedy import Token
from nemostream.group import Group, Meanwhile
from nemostream.protocol import Event
from nemostream.runner import Done, Runner
from nemostream.stream import Stream
from nemostream.work import Batch, Work

Array = npt.NDArray[Any]


@dataclass(slots=True)
class Notes:
    """Tables of four columns each, flat or in parts.

    Attributes:
        steps: when it began, seconds, rows with work, rows in the batch; those that answer a flush or look into a chunk
            are steps too.
        chunks: owner, stream, number, when its events were handed out; of committed chunks.
        tokens: owner, stream, id, frame.
    """

    steps: array[float] = field(default_factory=lambda: array("d"))
    chunks: list[Array] = field(default_factory=list)
    tokens: array[float] = field(default_factory=lambda: array("d"))
    _open: list[Array] = field(default_factory=list)
    _owners: dict[int, tuple[list[Any], Array]] = field(default_factory=dict)
    _said: dict[int, list[tuple[int, int]]] = field(default_factory=dict)

    def install(self) -> None:
        """Wrap the engine's methods, for good: a process has one tap."""
        run, done, hand_out = Runner._run, Stream.done, Engine._hand_out

        def noted_run(
            runner: Runner, group: Group, batch: Batch, dense: int | None, meanwhile: Meanwhile
        ) -> list[Done]:
            before = group.lanes.chunks[batch.rows]
            began = time.monotonic()
            result = run(runner, group, batch, dense, meanwhile)
            self.steps.extend((began, time.monotonic() - began, len(batch), dense or len(batch)))
            used = group.lanes.chunks[batch.rows] > before
            self._open.append(np.column_stack([self._keys(group)[batch.rows[used]], before[used]]))
            self._settle(result)
            return result

        def noted_done(stream: Stream, tokens: Sequence[Token], work: Work | None = None) -> list[Event]:
            if work is None and tokens:
                first = stream.feed.lane.chunks * stream.chunk_frames
                self._said[id(stream)] = [(token.id, first + token.frame) for token in tokens]
            return done(stream, tokens, work)

        def noted_hand_out(engine: Engine) -> None:
            hand_out(engine)
            now = time.monotonic()
            self.chunks += [np.column_stack([chunks, np.full(len(chunks), now)]) for chunks in self._open]
            self._open.clear()

        for kind, name, method in (
            (Runner, "_run", noted_run),
            (Stream, "done", noted_done),
            (Engine, "_hand_out", noted_hand_out),
        ):
            setattr(kind, name, method)

    def _keys(self, group: Group) -> Array:
        """(rows, 2): the owner and the number of each row's stream."""
        owners = group.rows.owners()
        known, keys = self._owners.get(id(group), ([], np.zeros((0, 2))))
        if known != owners:
            keys = np.array(owners, float)
            self._owners[id(group)] = owners, keys
        return keys

    def _settle(self, result: Sequence[Done]) -> None:
        for seat, _ in result:
            for said in self._said.pop(id(seat.stream), ()):
                self.tokens.extend((*seat.key, *said))  # type: ignore[arg-type]

    def save(self, path: Path) -> None:
        """Write all of it as .npz."""
        steps, tokens = (np.array(column).reshape(-1, 4) for column in (self.steps, self.tokens))
        chunks = np.concatenate([np.zeros((0, 4)), *self.chunks])
        np.savez(path, steps=steps, chunks=chunks, tokens=tokens)


def serve(path: Path) -> None:
    """Run the command `nemostream`; the notes are written when its engine closes."""
    from nemostream.__main__ import main

    notes = Notes()
    notes.install()
    close = Engine.close

    def noted_close(engine: Engine) -> None:
        close(engine)
        notes.save(path)

    setattr(Engine, "close", noted_close)  # noqa: B010 (a plain assignment is no less of a patch)
    main()


if __name__ == "__main__":
    target = Path(sys.argv.pop(1))
    serve(target)
