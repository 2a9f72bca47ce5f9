"""Importing costs next to nothing: the agents framework preloads plugins in a server that it then forks."""

from __future__ import annotations

import json
import subprocess
import sys


def run(source: str) -> dict[str, object]:
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_importing_the_plugin_loads_no_runtime_and_starts_no_thread() -> None:
    result = run(
        "import json, sys, threading\n"
        "import livekit.agents\n"
        "before = threading.active_count()\n"
        "from livekit.plugins import nemo\n"
        "heavy = [m for m in ('torch', 'onnxruntime', 'onnx', 'nemo') if m in sys.modules]\n"
        "print(json.dumps({'heavy': heavy, 'threads': threading.active_count() - before}))"
    )
    assert result == {"heavy": [], "threads": 0}


def test_importing_nemostream_needs_numpy_alone_and_under_300_ms() -> None:
    # Time of the processor, so that a busy machine does not count against us.
    result = run(
        "import json, sys, sysconfig, time\n"
        "before, start = set(sys.modules), time.process_time()\n"
        "import nemostream\n"
        "seconds = time.process_time() - start\n"
        "import nemostream.protocol, nemostream.client\n"
        "site = sysconfig.get_paths()['purelib']\n"
        "new = [sys.modules[name] for name in set(sys.modules) - before]\n"
        "packages = {m.__name__.split('.')[0] for m in new if (getattr(m, '__file__', None) or '').startswith(site)}\n"
        "print(json.dumps({'seconds': seconds, 'packages': sorted(packages)}))"
    )
    assert result["packages"] == ["numpy"]
    seconds = result["seconds"]
    assert isinstance(seconds, float) and seconds < 0.3


def test_the_plugin_registers_itself_and_its_files_are_there() -> None:
    result = run(
        "import json\n"
        "from livekit.agents import Plugin\n"
        "from livekit.plugins import nemo\n"
        "[plugin] = [p for p in Plugin.registered_plugins if p.package == 'livekit.plugins.nemo']\n"
        "plugin.download_files()\n"
        "print(json.dumps({'version': plugin.version == nemo.__version__}))"
    )
    assert result == {"version": True}
