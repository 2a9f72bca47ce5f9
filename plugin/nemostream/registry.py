"""The engines of this process: one for every config, shared by all who ask for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from nemostream.engine import Engine
from nemostream.engine_config import EngineConfig
from nemostream.figures import Description
from nemostream.protocol import Event, Message
from nemostream.remote import RemoteEngine, Shared

LINGER_SECONDS = 60.0
"""An engine that nobody uses stays this long: jobs come one after another, and loading a model takes time."""


class AnyConnection(Protocol):
    """One owner of streams (engine.Connection, remote.RemoteConnection)."""

    def send(self, *messages: Message) -> None: ...

    def close(self) -> None: ...


class AnyEngine(Protocol):
    """An engine in this process (engine.Engine) or in one of its own (remote.RemoteEngine)."""

    def connect(self, deliver: Callable[[Sequence[Event]], None]) -> AnyConnection: ...

    def load(self, model: str | None = None) -> None: ...

    def stats(self) -> dict[str, float]: ...

    def describe(self) -> Description: ...

    def close(self) -> None: ...


Config = EngineConfig | Shared

_lock = threading.Lock()
_engines: dict[Config, Engine | RemoteEngine] = {}
_users: dict[Config, int] = {}
_changes: dict[Config, int] = {}


def acquire(config: Config | None = None) -> Engine | RemoteEngine:
    """The engine for that config, made on first use. Give it back with `release`.

    Args:
        config: an EngineConfig for one in this process (the default), or Shared() for the machine's.
    """
    config = config or EngineConfig()
    with _lock:
        if config not in _engines or _engines[config].closed:
            _engines[config] = Engine(config) if isinstance(config, EngineConfig) else RemoteEngine(config)
            _users[config] = 0
        _users[config] = _users.get(config, 0) + 1
        return _engines[config]


def release(engine: Engine | RemoteEngine, linger: float = LINGER_SECONDS) -> None:
    """One user less; `linger` seconds after the last one the engine stops, unless somebody came meanwhile."""
    with _lock:
        if _engines.get(engine.config) is not engine:
            return
        _users[engine.config] -= 1
        _changes[engine.config] = change = _changes.get(engine.config, 0) + 1
        if _users[engine.config]:
            return
    timer = threading.Timer(linger, _stop_if_unused, (engine, change))
    timer.daemon = True
    timer.start()


def _stop_if_unused(engine: Engine | RemoteEngine, change: int) -> None:
    """`change`: the count at the release that set the timer; a later one has a timer of its own."""
    with _lock:
        config = engine.config
        if _engines.get(config) is not engine or _users[config] or _changes[config] != change:
            return
        del _users[config], _engines[config], _changes[config]
    engine.close()
