"""Where the machine's engine is found: a socket in a folder of the user's own, and a lock that its process holds.

place = Place.default()
place.spawn()                  # starts `nemostream serve` there; of several that start at once one stays
with place.hold(): ...         # the engine's process, while it lives
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nemostream.errors import EngineLost, EngineTaken

MAX_PATH = 107
"""Bytes of a Unix socket's path (sockaddr_un)."""


@dataclass(frozen=True, slots=True)
class Place:
    """A socket's path, and what lies beside it: engine.sock.lock (held by the engine), engine.sock.log."""

    socket: Path

    @classmethod
    def default(cls) -> Place:
        """NEMOSTREAM_SOCKET, else engine.sock in XDG_RUNTIME_DIR/nemostream or /tmp/nemostream-UID."""
        named = os.environ.get("NEMOSTREAM_SOCKET")
        if named:
            return cls(Path(named))
        runtime = os.environ.get("XDG_RUNTIME_DIR")
        folder = Path(runtime) / "nemostream" if runtime else Path(f"/tmp/nemostream-{os.getuid()}")
        return cls(folder / "engine.sock")

    def prepare(self) -> None:
        """Make the folder, for nobody else to read.

        Raises:
            EngineLost: it cannot be made, or is not only ours.
        """
        folder = self.socket.parent
        if len(os.fsencode(self.socket)) > MAX_PATH:
            raise EngineLost(f"{self.socket} is longer than {MAX_PATH} bytes; set NEMOSTREAM_SOCKET to a shorter path")
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = folder.stat()
        except OSError as error:
            raise EngineLost(f"{folder} cannot be used for the engine's socket: {error.strerror}") from error
        if found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise EngineLost(f"{folder} must belong to you alone (mode 0700); mend it or set NEMOSTREAM_SOCKET")

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Be the engine of this place.

        Raises:
            EngineTaken: another process is.
            EngineLost: the folder cannot be used.
        """
        self.prepare()
        with self._lock("lock") as mine:
            if not mine:
                raise EngineTaken(f"an engine is running at {self.socket} already")
            try:
                yield
            finally:
                self.socket.unlink(missing_ok=True)

    @contextlib.contextmanager
    def starting(self) -> Iterator[bool]:
        """True for the one client that may start an engine now, until the block ends."""
        self.prepare()
        with self._lock("starting") as mine:
            yield mine

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start an engine for this place in a session of its own: it outlives the process that first needed it."""
        command = [sys.executable, "-m", "nemostream", "serve", "--socket", str(self.socket), "--spawned"]
        with open(f"{self.socket}.log", "ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
            )

    def last_words(self) -> str:
        """The last line of the engine's log, for an error message."""
        try:
            with open(f"{self.socket}.log", "rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - 2000))
                lines = log.read().decode(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return lines[-1] if lines else ""

    @contextlib.contextmanager
    def _lock(self, name: str) -> Iterator[bool]:
        # The file stays: unlinking it would let two processes lock two files of one name.
        handle = os.open(f"{self.socket}.{name}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(handle)
