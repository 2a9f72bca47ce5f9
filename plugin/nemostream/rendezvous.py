"""Where the machine's engine is found: a socket in a folder of the user's own, and a lock that its process holds.

place = Place.default()
place.spawn()                  # starts `nemostream serve` there; of several that start at once one stays
with place.hold(): ...         # the engine's process, while it lives
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from nemostream.errors import EngineLost, EngineTaken

MAX_PATH = 107
"""Bytes of a Unix socket's path (sockaddr_un)."""
MAX_LOG = 1 << 20
"""Bytes of a log; a longer one becomes engine.sock.log.1, in place of the one before."""


class Peer(NamedTuple):
    """The process behind a Unix socket, as the kernel knows it (0: of another container)."""

    pid: int
    user: int


def peer(connected: socket.socket) -> Peer:
    """Who connected, or who listens."""
    form = "iII"
    data = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize(form))
    return Peer(*struct.unpack(form, data)[:2])


@dataclass(frozen=True, slots=True)
class Place:
    """A socket's path, and what lies beside it: engine.sock.lock (held by the engine), engine.sock.log."""

    socket: Path

    @classmethod
    def default(cls) -> Place:
        """NEMOSTREAM_SOCKET, else engine.sock in XDG_RUNTIME_DIR/nemostream or /tmp/nemostream-UID."""
        named = os.environ.get("NEMOSTREAM_SOCKET")
        if named:
            return cls(Path(named).absolute())
        runtime = os.environ.get("XDG_RUNTIME_DIR")
        folder = Path(runtime) / "nemostream" if runtime else Path(f"/tmp/nemostream-{os.getuid()}")
        return cls(folder / "engine.sock")

    def prepare(self) -> None:
        """Make the folder, for nobody else to read. Nobody listens or connects anywhere else: who can write to the
        folder could be the engine, and hear.

        Raises:
            EngineLost: it cannot be made, or is not only ours.
        """
        folder = self.socket.parent
        if len(os.fsencode(self.socket)) > MAX_PATH:
            raise EngineLost(f"{self.socket} is longer than {MAX_PATH} bytes; set NEMOSTREAM_SOCKET to a shorter path")
        with self._usable():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise EngineLost(f"{folder} must be a folder of yours alone (mode 0700); mend it or set NEMOSTREAM_SOCKET")

    @contextlib.contextmanager
    def hold(self, spawned: bool = False) -> Iterator[None]:
        """Be the engine of this place: listen at its socket, over one that a dead engine left (as asyncio does).
        `spawned`: a client started this process, and clients may end it.

        Raises:
            EngineTaken: another process is.
            EngineLost: the folder cannot be used.
        """
        self.prepare()
        with self._lock("lock") as lock:
            if lock is None:
                raise EngineTaken(f"an engine is running at {self.socket} already")
            with self._usable():
                os.ftruncate(lock, 0)
                os.pwrite(lock, f"{os.getpid()} {'spawned' if spawned else 'service'}".encode(), 0)
                if self.socket.exists() and not self.socket.is_socket():
                    raise EngineLost(f"{self.socket} is no socket, and stays as it is; choose another path")
            try:
                yield
            finally:
                self.socket.unlink(missing_ok=True)

    def may_end(self, pid: int) -> bool:
        """Is that process the engine of this place, and did a client start it?"""
        try:
            return Path(f"{self.socket}.lock").read_text() == f"{pid} spawned"
        except (OSError, UnicodeDecodeError):
            return False

    @contextlib.contextmanager
    def starting(self) -> Iterator[bool]:
        """True for the one client that may start an engine now, until the block ends."""
        self.prepare()
        with self._lock("starting") as lock:
            yield lock is not None

    def spawn(self, device: str | None = None) -> subprocess.Popen[bytes]:
        """Start an engine for this place in a session of its own: it outlives the process that first needed it.

        Args:
            device: it computes on; None: what NEMOSTREAM_DEVICE says, else the CPU.

        Raises:
            EngineLost: no process can be started, or there is no room for its log.
        """
        command = [sys.executable, "-m", "nemostream", "serve", "--socket", str(self.socket.absolute()), "--spawned"]
        command += ["--device", device] if device else []
        self.trim_log()
        with self._usable(), open(self.log, "ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
            )

    @property
    def log(self) -> Path:
        """Of engines that were spawned: all that they print."""
        return Path(f"{self.socket}.log")

    def log_size(self) -> int:
        """Bytes."""
        with contextlib.suppress(OSError):
            return self.log.stat().st_size
        return 0

    def trim_log(self) -> None:
        """Begin the log anew if it is long. Who has it open goes on at its new end."""
        with contextlib.suppress(OSError):
            if stat.S_ISREG(self.log.stat().st_mode) and self.log_size() > MAX_LOG:
                shutil.copyfile(self.log, f"{self.log}.1")
                os.truncate(self.log, 0)

    def last_words(self, since: int = 0) -> str:
        """The last line of the engine's log behind its first `since` bytes, for an error message; "" if there is
        none."""
        try:
            with open(self.log, "rb") as log:
                log.seek(max(since, log.seek(0, os.SEEK_END) - 2000))
                lines = log.read(2000).decode(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return lines[-1] if lines else ""

    @contextlib.contextmanager
    def _lock(self, name: str) -> Iterator[int | None]:
        """The lock's file descriptor; None: another process has it."""
        # The file stays: unlinking it would let two processes lock two files of one name.
        with self._usable():
            handle = os.open(f"{self.socket}.{name}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
                return
            try:
                yield handle
            finally:
                # Not only closed: a process that was forked meanwhile has the same open file.
                fcntl.flock(handle, fcntl.LOCK_UN)
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            raise EngineLost(f"{self.socket.parent} cannot be used for the engine's socket: {reason}") from error
