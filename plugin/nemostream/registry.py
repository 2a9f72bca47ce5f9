"""The engines of this process: one for every config, shared by all who ask for it."""

from __future__ import annotations

import threading

from nemostream.engine import Engine, EngineConfig

LINGER_SECONDS = 60.0
"""An engine that nobody uses stays this long: jobs come one after another, and loading a model takes time."""

_lock = threading.Lock()
_engines: dict[EngineConfig, Engine] = {}
_users: dict[EngineConfig, int] = {}


def acquire(config: EngineConfig | None = None) -> Engine:
    """The engine for that config, made on first use. Give it back with `release`."""
    config = config or EngineConfig()
    with _lock:
        if config not in _engines:
            _engines[config] = Engine(config)
        _users[config] = _users.get(config, 0) + 1
        return _engines[config]


def release(engine: Engine, linger: float = LINGER_SECONDS) -> None:
    """One user less; `linger` seconds after the last one the engine stops, unless somebody came."""
    with _lock:
        if _engines.get(engine.config) is not engine:
            return
        _users[engine.config] -= 1
        if _users[engine.config]:
            return
    timer = threading.Timer(linger, _stop_if_unused, (engine,))
    timer.daemon = True
    timer.start()


def _stop_if_unused(engine: Engine) -> None:
    with _lock:
        if _engines.get(engine.config) is not engine or _users[engine.config]:
            return
        del _users[engine.config], _engines[engine.config]
    engine.close()
