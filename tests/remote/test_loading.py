"""Models that take long to load: how many at once, and what ends meanwhile."""

from __future__ import annotations

import threading

import pytest

from nemostream import guest, wire
from tests.remote.raw import Raw, eventually
from tests.serving import ServedEngine


def test_too_many_loads_are_refused_and_a_load_may_outlive_its_client(
    served: ServedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert served.config.place is not None
    go_on = threading.Event()
    monkeypatch.setattr(served.behind, "load", lambda model: go_on.wait(20))
    with Raw(served.config.place) as raw:
        for i in range(1, guest.MAX_LOADS + 3):
            raw.send(wire.Call(i, "load", "slow"))
        for i in (guest.MAX_LOADS + 1, guest.MAX_LOADS + 2):
            reply = raw.until(wire.Reply, i)
            assert isinstance(reply, wire.Reply) and reply.code == "EngineFull"
    go_on.set()
    eventually(lambda: not any(t.name == "nemostream-load" for t in threading.enumerate()))
    monkeypatch.setattr(served.behind, "load", lambda model: 1 / 0)
    with Raw(served.config.place) as raw:
        raw.send(wire.Call(1, "load", "broken"))
        reply = raw.until(wire.Reply, 1)
        assert isinstance(reply, wire.Reply) and "ZeroDivisionError" in reply.message
