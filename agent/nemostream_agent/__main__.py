"""`python -m nemostream_agent captions|voice-agent dev|start|connect`: programs above LiveKit's own command line."""

from __future__ import annotations

import importlib
import sys

PROGRAMS = {
    "captions": ("captions", "caption everyone in the rooms of a LiveKit server"),
    "voice-agent": ("voice_agent", "example: answer who speaks"),
}


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in PROGRAMS:
        programs = "\n".join(f"  {name:12} {text}" for name, (_, text) in PROGRAMS.items())
        print(f"usage: nemostream-agent PROGRAM dev|start|connect [options]\n\n{programs}", file=sys.stderr)
        sys.exit(0 if name in ("-h", "--help") else 2)
    from livekit.agents import cli

    module = importlib.import_module(f"nemostream_agent.{PROGRAMS[name][0]}")
    sys.argv = [f"nemostream-agent {name}", *sys.argv[2:]]
    cli.run_app(module.server)


if __name__ == "__main__":
    main()
