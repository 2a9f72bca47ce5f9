"""A client's bookkeeping in front of a Core that can be lost at any moment: no socket, no thread, a clock that the test
moves."""

from __future__ import annotations

from typing import Any

from nemostream.core import Core
from nemostream.model import Model
from nemostream.protocol import Event, Final, Message, Push, Pushes
from nemostream.switchboard import Switchboard


class Rig:
    """rig.send(message); rig.lose(); rig.finals(1)

    Attributes:
        events: what the owner has seen, by stream.
        losses: engines lost.
    """

    def __init__(self, model: Model, *, peek: bool = False, max_streams: int = 8) -> None:
        self.model = model
        self.now = 0.0
        self.events: dict[int, list[Event]] = {}
        self.losses = 0
        self._made: dict[str, Any] = {"max_streams": max_streams, "peek": peek}
        self._board = Switchboard()
        self.core = self._new_core()

    def send(self, message: Message, *, arrives: bool = True) -> None:
        """`arrives` False: it was on its way when the engine died (`lose` must follow)."""
        ready, answers = self._board.send(0, message)
        self._keep(answers)
        self._hand_over(ready if arrives else [])

    def run(self, steps: int | None = None, *, read: bool = True) -> None:
        """Let the engine work until nothing is due, or that many steps; `read` False: what it says is on its way."""
        while (steps is None or steps > 0) and self.core.step():
            steps = None if steps is None else steps - 1
        if read:
            self.read()

    def read(self) -> None:
        self._keep(self._board.take(self.core.take_events().get("client", [])))

    def lose(self) -> None:
        """The engine is gone, with all that was on its way; another one takes over."""
        self.losses += 1
        self.core = self._new_core()
        self._hand_over(self._board.replay())

    def finals(self, stream: int) -> list[Final]:
        return [e for e in self.events.get(stream, []) if isinstance(e, Final)]

    def text(self, stream: int) -> str:
        return " ".join(f.text for f in self.finals(stream) if f.text)

    def _hand_over(self, messages: list[Message]) -> None:
        for message in messages:
            if isinstance(message, Push):
                self.core.hear("client", Pushes.of([message]))
            else:
                self.core.handle("client", message)

    def _new_core(self) -> Core:
        core = Core(clock=lambda: self.now, **self._made)
        core.add_model(None, self.model)
        return core

    def _keep(self, answers: dict[int, list[Event]]) -> None:
        for event in answers.get(0, []):
            self.events.setdefault(event.stream, []).append(event)
