"""The server's watch: a step that hangs ends the process; a pause of the process itself ends nothing."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from nemostream import server, wire
from nemostream.model import Model
from nemostream.models.bundle import Bundle
from tests.engine.conftest import offline, utterance
from tests.remote.raw import Raw, eventually
from tests.remote.talk import Talk, blocks
from tests.serving import EngineProcess

HANG = """
import time, pathlib
from nemostream import core, server
server.WATCH_SECONDS, server.STEP_SECONDS = 0.05, 0.3
flag, step = pathlib.Path({flag!r}), core.Core.step
def hang(self, meanwhile):
    if flag.exists() and len(self):
        flag.unlink()
        time.sleep(3600)
    return step(self, meanwhile)
core.Core.step = hang
"""


@pytest.mark.parametrize("terminated", [False, True])
def test_a_step_that_hangs_ends_the_process_and_clients_go_on(
    toy_bundle: Bundle, toy: Model, tmp_path: Path, terminated: bool
) -> None:
    speech = [utterance(300 + i, 6) for i in range(2)]
    expected = [offline(toy, s, chunk_ms=160) for s in speech]
    flag = tmp_path / "hang"
    arguments = "--model", str(toy_bundle.path), "--precision", "fp32", "--threads", "1"
    with EngineProcess(*arguments, before=HANG.format(flag=str(flag))) as process:
        talk = Talk(process.engine(), speech)
        for block in blocks(speech):
            talk.say(block)
            if block == len(blocks(speech)) // 2:
                flag.touch()
                eventually(lambda: not flag.exists())
                if terminated:
                    process.signal(signal.SIGTERM)
                assert process.wait() == server.HUNG
                process.start()
        talk.end()
        assert [talk.text(i) for i in range(2)] == expected
        log = process.log()
        assert log.count("the process ends") == 1
        assert "Traceback" not in log and not any(
            f.text in log for fs in talk.finals.values() for f in fs if " " in f.text
        )


def test_a_server_that_was_stopped_does_not_take_its_clients_for_dead(toy_bundle: Bundle) -> None:
    patch = "from nemostream import guest, server; server.WATCH_SECONDS, guest.SILENT_SECONDS = 0.05, 0.5"
    with EngineProcess("--model", str(toy_bundle.path), "--threads", "1", before=patch) as process:
        process.engine().stats()
        with Raw(process.place) as raw:
            assert raw.read(alive=True) == wire.Reply(wire.PING)  # it is being watched
            process.signal(signal.SIGSTOP)
            time.sleep(1.0)  # the pause itself
            process.signal(signal.SIGCONT)
            for _ in range(3):
                assert raw.read(alive=True) == wire.Reply(wire.PING)
            raw.send(wire.Call(1, "ping"))
            raw.until(wire.Reply, 1)
