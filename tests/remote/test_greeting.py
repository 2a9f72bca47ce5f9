"""Who is let in: a client says hello in time, and is of the same user."""

from __future__ import annotations

import os
import stat
import subprocess

import pytest

from nemostream import guest, server, wire
from nemostream.rendezvous import Peer
from tests.remote.raw import HELLO, Raw, eventually
from tests.serving import ServedEngine


def test_a_client_that_says_nothing_is_sent_away(served: ServedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert served.config.place is not None
    monkeypatch.setattr(server, "HELLO_SECONDS", 0.05)
    for begin in (b"", b"\x05\0\0", b"\x05\0\0\0ab"):
        with Raw(served.config.place, hello=None) as raw:
            raw.send(begin)
            goodbye = raw.farewell()
            assert goodbye is not None and "did not say hello within" in goodbye.message


def test_who_takes_time_to_say_hello_is_told_welcome_first(
    served: ServedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signs of life begin behind it."""
    assert served.config.place is not None
    monkeypatch.setattr(server, "WATCH_SECONDS", 0.01)
    looks: list[float] = []
    look = guest.Guest.look
    monkeypatch.setattr(guest.Guest, "look", lambda self, seconds: (looks.append(seconds), look(self, seconds)))
    with Raw(served.config.place, hello=None) as raw:
        eventually(lambda: looks.count(0.01) > 20)
        raw.send(HELLO)
        assert isinstance(raw.read(alive=True), wire.Welcome)
        assert raw.read(alive=True) == wire.Reply(wire.PING)


def test_another_user_is_refused(served: ServedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert served.config.place is not None
    monkeypatch.setattr(guest, "peer", lambda s: Peer(1, os.getuid() + 1))
    with Raw(served.config.place, hello=None) as raw:
        goodbye = raw.farewell()
        assert goodbye is not None and "another user" in goodbye.message


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_another_users_process_is_refused_even_if_the_folder_is_open(served: ServedEngine) -> None:
    assert served.config.place is not None
    path = served.config.place.socket
    script = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({str(path)!r}); print(s.recv(999))"
    os.chmod(path.parent, 0o755)
    os.chmod(path, 0o777)
    try:
        found = subprocess.run(["/usr/bin/env", "python3", "-c", script], user=65534, capture_output=True, timeout=20)
    finally:
        os.chmod(path.parent, stat.S_IRWXU)
    assert b"another user" in found.stdout
