"""`python -m nemostream_agent PROGRAM ...`: the agents above LiveKit's own command line, and programs of our own."""

from __future__ import annotations

import importlib
import sys

AGENTS = {
    "captions": ("captions", "caption everyone in the rooms of a LiveKit server"),
    "voice-agent": ("voice_agent", "example: answer who speaks"),
}
PROGRAMS = {
    "gateway": ("gateway.cli", "serve speech-to-text over HTTP and WebSocket"),
    "demo": ("demo.__main__", "the pages on this machine, with a microphone to speak into"),
    "client": ("stream_client", "send a file or the microphone to a gateway"),
    "key": ("gateway.key", "make an API key for a gateway"),
}
EXTRA = "pip install 'livekit-plugins-nemo[agent]'"


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in AGENTS:
        from livekit.agents import cli

        module = importlib.import_module(f"nemostream_agent.{AGENTS[name][0]}")
        sys.argv = [f"nemostream-agent {name}", *sys.argv[2:]]
        cli.run_app(module.server)
    elif name in PROGRAMS:
        sys.argv = [f"nemostream-agent {name}", *sys.argv[2:]]
        try:
            module = importlib.import_module(f"nemostream_agent.{PROGRAMS[name][0]}")
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith("nemostream"):
                raise
            sys.exit(f"nemostream-agent {name} needs {error.name}: {EXTRA}")
        module.main()
    else:
        print(f"usage: nemostream-agent PROGRAM [options]\n\n{_list(AGENTS)}\n{_list(PROGRAMS)}", file=sys.stderr)
        print("\nthe first two take dev, start or connect, and LiveKit's options behind it", file=sys.stderr)
        sys.exit(0 if name in ("-h", "--help") else 2)


def _list(programs: dict[str, tuple[str, str]]) -> str:
    return "\n".join(f"  {name:12} {text}" for name, (_, text) in programs.items())


if __name__ == "__main__":
    main()
