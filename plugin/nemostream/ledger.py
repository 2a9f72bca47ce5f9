"""What a client knows of one stream, so that losing the engine loses nothing: what was sent since the last checkpoint,
and what was given out.

ledger = Ledger(opened)
ledger.sent(message)                   # everything behind the Open, in order
for event in ledger.take(event): ...   # what the stream's owner has not heard yet
send(*ledger.replay())                 # to a new engine: a checkpoint to resume, and what it does not cover

An engine's answer follows from the checkpoint and the messages alone, so a replay gives the same finals again; those
that were given out are held back here. What does depend on time (a source that fell silent) is covered by a checkpoint
of its own.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator

from nemostream.errors import EngineFull, EngineLost, WireError
from nemostream.protocol import (
    SAMPLE_RATE,
    Checkpoint,
    Close,
    Event,
    Failed,
    Final,
    Interim,
    Message,
    Open,
    Preflight,
    Push,
    Refused,
    Started,
    Update,
    Usage,
    updated,
)

LIMIT = {"live": 20 * SAMPLE_RATE, "batch": 3600 * SAMPLE_RATE}
"""Samples that are kept while no checkpoint covers them. Older ones are given up, and the next Final says so."""


class Ledger:
    """One stream's. Pure bookkeeping: no socket, no clock.

    Attributes:
        opened: how to open it again.
        samples: of audio kept.
        started: the engine has answered the Open at least once.
    """

    def __init__(self, opened: Open) -> None:
        self.opened = dataclasses.replace(opened, recoverable=True)
        self.samples = 0
        self.started = False
        self._limit = LIMIT[opened.priority]
        self._unsaved: deque[Message] = deque()
        self._replaying = False
        self._lost = False
        self._kept = False
        self._sequence = 0
        self._generation = 0
        self._segment = 0
        self._shown = ""
        self._heard = 0

    def sent(self, message: Message) -> None:
        """A message goes out, or would if there were an engine."""
        self._unsaved.append(message)
        self._kept |= isinstance(message, Close) and message.keep
        if isinstance(message, Push):
            self.samples += len(message.samples)
            if self.samples > self._limit:
                self._give_up()

    def replay(self) -> list[Message]:
        """What a new engine must be told to be where the old one was."""
        self._replaying = True
        self._lost |= any(isinstance(m, Push) and not len(m.samples) for m in self._unsaved)
        return [self.opened, *self._unsaved]

    def take(self, event: Event) -> Iterator[Event]:
        """The event, as the owner should see it; nothing if it knows it or it is not meant for it."""
        if isinstance(event, Checkpoint):
            if not self._kept or event.taken < len(self._unsaved):
                self._save(event)
                return
            # The one that answers a Close with `keep` is the owner's.
        if isinstance(event, Started):
            if self.started:
                return
            self.started = True
            self._generation = event.generation
        elif isinstance(event, Refused) and self.started:
            event = self._failed(event)
        elif isinstance(event, (Interim, Preflight, Final)):
            if event.segment < self._segment or self._is_old(event):
                return
            event = self._text(event)
        elif isinstance(event, Usage):
            # A replay counts again what was counted before.
            if event.total <= self._heard:
                return
            event = dataclasses.replace(event, samples=event.total - self._heard)
            self._heard = event.total
        self._sequence += 1
        yield dataclasses.replace(event, generation=self._generation, sequence=self._sequence)

    def _text(self, event: Interim | Preflight | Final) -> Interim | Preflight | Final:
        self._replaying = False
        if not isinstance(event, Final):
            self._shown = event.text
            return event
        self._shown = ""
        if not event.text and event.flush_id is None:
            return event  # only takes back what was shown; the segment goes on
        self._segment = event.segment + 1
        if self._lost:
            self._lost = False
            return dataclasses.replace(event, whole=False)
        return event

    def _is_old(self, event: Interim | Preflight | Final) -> bool:
        """While a replay catches up it shows again, word by word, what stands there already."""
        return self._replaying and not isinstance(event, Final) and self._shown.startswith(event.text)

    def _save(self, event: Checkpoint) -> None:
        if event.taken > len(self._unsaved):
            raise WireError(f"a checkpoint covers {event.taken} messages, {len(self._unsaved)} were sent")
        for _ in range(event.taken):
            message = self._unsaved.popleft()
            if isinstance(message, Push):
                self.samples -= len(message.samples)
            elif isinstance(message, Update):
                self.opened = updated(self.opened, message)
        self.opened = dataclasses.replace(self.opened, resume=event.snapshot)

    def _give_up(self) -> None:
        """Forget the oldest audio. Its place stays in the log, empty: positions in it must not move."""
        for i, message in enumerate(self._unsaved):
            if isinstance(message, Push) and len(message.samples):
                self.samples -= len(message.samples)
                self._unsaved[i] = dataclasses.replace(message, samples=message.samples[:0])
                return

    def _failed(self, refused: Refused) -> Failed:
        """The new engine does not take the stream: whoever owns it may open another one."""
        code = refused.code if refused.code == EngineFull.__name__ else EngineLost.__name__
        text = f"the engine was lost and the stream could not go on in a new one: {refused.message}"
        return Failed(refused.stream, 0, 0, code=code, message=text, retryable=True)
