"""How loaded this machine is, for LiveKit's dispatch: it sees CPUs only, and not the engine that all jobs share.

server = AgentServer(load_fnc=nemo.load)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from livekit.agents import AgentServer
from livekit.agents.worker import ServerOptions

from nemostream.probe import probe


def load(server: AgentServer) -> float:
    """0..1: the largest of the CPUs' load as LiveKit measures it, the part of the engine's rows that is taken, and the
    part of its time that steps take. Without an engine yet, the first alone."""
    stats = probe() or {"streams": 0.0, "max_streams": 1.0, "step_share": 0.0}
    rows = stats["streams"] / max(1.0, stats["max_streams"])
    cpu = cast(Callable[[AgentServer], float], ServerOptions.load_fnc)(server)
    return min(1.0, max(cpu, rows, stats["step_share"]))
