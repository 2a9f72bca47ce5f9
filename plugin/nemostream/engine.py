"""The engine: one thread, one batch, many owners of streams.

engine = Engine(EngineConfig())
connection = engine.connect(deliver=print)        # called on the engine's thread, once a step at most
connection.send(Open(stream=1))
connection.send(Push(1, samples, at_sample=0), Flush(1, flush_id=1))
connection.close(); engine.close()
"""

from __future__ import annotations

import copy
import itertools
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from nemostream import calibration, machine
from nemostream.alone import collect, forget
from nemostream.core import Core
from nemostream.engine_config import EngineConfig
from nemostream.errors import NemostreamError, Overrun, StreamClosed, UnknownModel
from nemostream.figures import Description, ModelFacts
from nemostream.lobby import Lobby, awaited
from nemostream.mailbox import Item, Mailbox
from nemostream.memory import model_bytes
from nemostream.model import Model
from nemostream.models import catalog
from nemostream.protocol import Event, Message, Open, Pushes

logger = logging.getLogger("nemostream")

Deliver = Callable[[Sequence[Event]], None]


class Connection:
    """One owner of streams: an event loop, a process. Its stream numbers are its own."""

    def __init__(self, engine: Engine, number: int) -> None:
        self._engine = engine
        self._number = number

    def send(self, *messages: Message | Pushes) -> None:
        """Post messages, in order. Never blocks; safe from any thread."""
        self._engine._post([(self._number, m) for m in messages])

    def close(self) -> None:
        """Close all its streams at once, without drain; nothing is delivered any more."""
        self._engine._post([(self._number, None)])


class Engine:
    """The core on a daemon thread of its own."""

    def __init__(self, config: EngineConfig | None = None) -> None:
        self.config = config or EngineConfig()
        self._core = Core(self.config.max_streams, self.config.peek, self.config.max_batch)
        self._mail = Mailbox()
        self._deliver: dict[int, Deliver] = {}
        self._numbers = itertools.count(1)
        self._locks: dict[str | None, threading.Lock] = {}
        self._memory = threading.Lock() if self.config.model_memory_mb is not None else nullcontext()
        self._lobby = Lobby()
        self._making = threading.Lock()
        self._thread: threading.Thread | None = None
        self._busy_since: float | None = None

    def connect(self, deliver: Deliver) -> Connection:
        """A new owner. `deliver` gets its events on the engine's thread and must not block.

        Raises:
            StreamClosed: the engine is closed.
        """
        number = next(self._numbers)
        with self._mail.lock:
            if self._mail.closed:
                raise StreamClosed("the engine is closed; make another one")
            self._deliver[number] = deliver
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="nemostream-engine", daemon=True)
                self._thread.start()
        return Connection(self, number)

    def load(self, model: str | None = None) -> None:
        """Load a model now, on the calling thread, so that no stream waits for it later.

        Raises:
            UnknownModel, BundleError, CheckpointError: it cannot be had.
            DeviceError: the device is not here, or does not run that model.
            EngineFull, ModelMemory: there is no memory for it now, or at all.
        """
        with self._mail.lock:
            lock = self._locks.setdefault(model, threading.Lock())
        with lock:
            if model in self._core.models:
                return
            try:
                path = catalog.resolve(model or self.config.model)
            except UnknownModel:
                self._locks.pop(model, None)  # names that mean nothing leave nothing
                raise
            with self._memory:
                self._add(model, path)

    def _add(self, model: str | None, path: Path) -> None:
        loaded = next((m for m in list(self._core.models.values()) if m.bundle.path == path), None)
        if loaded is not None:
            self._core.add_model(model, loaded)
            return
        size = model_bytes(path, self.config.precision)
        if self.config.model_memory_mb is not None:
            limit = self.config.model_memory_mb << 20
            self._on_thread(lambda: self._core.make_room(size, limit, awaited=set(self._lobby.models)))
        config = self.config
        most = min(config.max_streams, config.max_batch or config.max_streams)
        loaded = Model.load(path, config.precision, config.threads, config.encoder, config.device, most)
        self._core.add_model(model, loaded, size, calibration.cached(loaded, self.config.threads))

    def close(self) -> None:
        """Stop the thread. Streams that are open fail with StreamClosed."""
        self._mail.close()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    @property
    def closed(self) -> bool:
        return self._mail.closed

    @property
    def open_streams(self) -> int:
        """Streams that hold a row now."""
        return len(self._core)

    @property
    def encoder_calls(self) -> int:
        """Steps taken since the start, over all groups."""
        return sum(g.counters.steps for g in list(self._core.groups.values()))

    @property
    def mail(self) -> int:
        """Messages that wait for the engine."""
        return len(self._mail)

    @property
    def busy_since(self) -> float | None:
        """When the step began that is running now (time.monotonic); None between steps."""
        return self._busy_since

    def stats(self) -> dict[str, float]:
        """What the engine is doing, for load figures and metrics."""
        return self._core.stats()

    def describe(self) -> Description:
        """What the engine is, what it runs on, and what it did so far."""
        core = self._core
        loaded: dict[int, ModelFacts] = {}
        for name, model in list(core.models.items()):
            facts = ModelFacts(model.bundle.info.name, [], model.backend.name, model.precision)
            loaded.setdefault(id(model), facts).names.append(name or "")
        return Description(
            pid=os.getpid(),
            device=self.config.device,
            processor=machine.processor(),
            memory_bytes=machine.memory_used(),
            memory_total_bytes=machine.memory_total(),
            models=list(loaded.values()),
            max_batch=self.config.max_batch,
            stats=self.stats(),
            figures=copy.deepcopy(core.figures),
        )

    def _post(self, items: Sequence[Item]) -> None:
        """If the engine is closed its streams have been told, or are being told."""
        self._mail.post(items)

    def _on_thread(self, action: Callable[[], None]) -> None:
        """Run `action` on the engine's thread, between two steps, and wait for it; raises what it raises."""
        done: Future[None] = Future()

        def run() -> None:
            try:
                done.set_result(action())  # type: ignore[func-returns-value]
            except Exception as error:
                done.set_exception(error)

        with self._mail.lock:
            if self._thread is None:
                return action()  # nobody has connected, and nobody can meanwhile
        self._post([run])
        while not wait([done], timeout=1.0).done:
            if self.closed:
                raise StreamClosed("the engine was closed")
        done.result()

    # --- on the engine's thread ---

    def _run(self) -> None:
        while (mail := self._next_mail()) is not None:
            self._busy_since = time.monotonic()
            self._take_all(mail)
            del mail  # it may hold what was made, and is not wanted any more
            try:
                self._core.step(self._hear_meanwhile)
            except Exception as error:
                # A defect of ours: no owner may be left waiting for an answer that never comes.
                logger.exception("the engine failed; its streams are closed")
                self._core.fail_all(error)
            self._busy_since = None
            self._hand_out()
        self._say_goodbye()

    def _take_all(self, mail: deque[Item]) -> None:
        for item in mail:
            try:
                self._take(item)
            except Exception:
                logger.exception("a message cannot be taken; it is dropped")

    def _hear_meanwhile(self) -> None:
        """While a device computes: take the audio that came in meanwhile, up to the first that is more than audio."""
        while not self._lobby:
            if (item := self._mail.first()) is None:
                return
            number, pushes = item if isinstance(item, tuple) else (0, None)
            if not isinstance(pushes, Pushes):
                self._mail.put_back([item])
                return
            try:
                left = self._core.hear_plain(number, pushes)
            except Exception as error:
                self._mail.put_back([partial(self._core.deafen, number, pushes, error)])
                return
            if left:
                self._mail.put_back([(number, push) for push in left])
                return

    def _next_mail(self) -> deque[Item] | None:
        """What came in, once there is something or a step is due; None: the engine is closed."""
        wake_at = self._core.wake_at()
        return self._mail.wait(None if wake_at is None else max(0.0, wake_at - self._core.clock()))

    def _say_goodbye(self) -> None:
        """Nobody may be left waiting for events that will never come: neither streams, nor those about to open."""
        closed = StreamClosed("the engine was closed")
        self._core.fail_all(closed)
        unanswered = [item for item in self._mail.rest() if isinstance(item, tuple)]
        for number, message in [*unanswered, *self._lobby.letters]:
            if isinstance(message, Open):
                self._core.refuse(number, message.stream, closed)
        self._hand_out()

    def _take(self, item: Item) -> None:
        if callable(item):
            item()
            return
        number, message = item
        if message is None:
            self._core.drop(number)
            self._lobby.forget(number)
            self._deliver.pop(number, None)
        elif isinstance(message, Pushes):
            if not self._lobby:
                self._core.hear(number, message)
            else:
                for push in message.each():
                    self._take((number, push))
        elif self._lobby and (number, message.stream) in self._lobby:
            try:
                self._lobby.put(number, message)
            except Overrun as error:
                self._core.refuse(number, message.stream, error)
        elif isinstance(message, Open) and (
            message.model not in self._core.models or self._core.missing(message) is not None
        ):
            if self._lobby.enter(number, message):
                threading.Thread(target=self._load_off_thread, args=(message,), daemon=True).start()
        else:
            self._core.handle(number, message)

    def _load_off_thread(self, opened: Open) -> None:
        """See to what the streams that open like that one wait for: the model, and its rows."""
        failure: NemostreamError | None = None
        model = opened.model
        try:
            self.load(model)
            self._make_rows(opened)
        except NemostreamError as error:
            failure = error
        except Exception as error:
            logger.exception("loading %s failed", model)
            failure = NemostreamError(f"loading {model or 'the default model'} failed: {error}")

        def loaded() -> None:
            for number, message in self._lobby.leave(awaited(opened)):
                if number not in self._deliver:
                    continue
                if failure is not None and isinstance(message, Open) and awaited(message) == awaited(opened):
                    self._core.refuse(number, message.stream, failure)
                else:
                    self._take((number, message))

        self._post([loaded])

    def _make_rows(self, opened: Open) -> None:
        """Where that takes seconds, on this thread, so that no stream of another chunk size waits. One after the other:
        two names may mean the same rows."""
        with self._making:
            if (make := self._core.missing(opened)) is not None:
                try:
                    group = make()
                except Exception as error:
                    # What was made of it may be most of a GPU's memory, and the next try needs that.
                    forget(error)
                    collect()
                    raise
                self._on_thread(lambda: self._core.join(group))

    def _hand_out(self) -> None:
        for number, events in self._core.take_events().items():
            deliver = self._deliver.get(number)  # type: ignore[call-overload]
            if deliver is None:
                continue
            try:
                deliver(events)
            except Exception:
                logger.exception("an owner's deliver raised; its events are lost to it alone")
