"""A look-alike of the Hugging Face hub on loopback: what huggingface_hub asks of it for a model.

with Hub() as hub:
    hub.repos["toys/toy"] = Repo({"toy.nemo": TOY})
    keep_converted(tmp_path, toy_bundle, "toy")
    subprocess.run([...], env=environment(tmp_path, HF_ENDPOINT=hub.url))
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from nemostream.models.bundle import Bundle
from nemostream.models.hub import bundle_name

TOY = (Path(__file__).parent / "data" / "toy.nemo").read_bytes()
LARGE = TOY + bytes(20 << 20)
"""Larger than the pieces that huggingface_hub writes; what follows the end of an archive means nothing."""


def environment(home: Path, **more: str) -> dict[str, str]:
    """Of a user who has that home, and nothing in the environment for the hub but `more`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    return {**kept, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "HF_HOME": str(home / "hf"), **more}


def keep_converted(home: Path, bundle: Bundle, *names: str) -> None:
    """Repositories of these names need no conversion in that home: `bundle` is what TOY and LARGE were made to."""
    bundles = home / "cache" / "nemostream" / "bundles"
    bundles.mkdir(parents=True, exist_ok=True)
    for name in names:
        for content in (TOY, LARGE):
            (bundles / bundle_name(name, hashlib.sha256(content).hexdigest())).symlink_to(bundle.path)


def keep_downloaded(home: Path, name: str, folder: str) -> None:
    """In that home the repository was downloaded, and `folder` is its bundle."""
    pin = {"repo": name, "revision": "a" * 40, "file": "toy.nemo", "sha256": "0" * 64, "bundle": folder}
    file = home / "cache" / "nemostream" / "hub" / f"{name.replace('/', '--')}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(pin))


@dataclass
class Repo:
    """A repository.

    Attributes:
        branches: what names the commit beside "main".
        announced: the hash that the hub says a file has; None: its own.
        token: whoever does not send it gets no file; "": everybody does.
        cuts: bytes after which the next connections that carry a file are cut, one after the other.
        stall: bytes after which nothing more comes; None: all comes. `stalled` is set there.
        asked: the Range of each request for a file, "" where there was none.
    """

    files: dict[str, bytes]
    commit: str = "a" * 40
    language: str | list[str] | None = None
    announced: str | None = None
    branches: tuple[str, ...] = ()
    token: str = ""
    cuts: list[int] = field(default_factory=list)
    stall: int | None = None
    stalled: threading.Event = field(default_factory=threading.Event)
    asked: list[str] = field(default_factory=list)

    def sha256(self, name: str) -> str:
        return self.announced or hashlib.sha256(self.files[name]).hexdigest()


class Hub:
    """Serves `repos` from a thread of its own."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Hub:
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application()
        app.router.add_get("/api/models/{owner}/{name}", self._info)
        app.router.add_get("/api/models/{owner}/{name}/revision/{revision}", self._info)
        app.router.add_get("/{owner}/{name}/resolve/{revision}/{file}", self._file)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0)
        self._loop.run_until_complete(site.start())
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        self._started.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())

    def _repo(self, request: web.Request) -> Repo:
        repo = self.repos.get("/".join(request.match_info[part] for part in ("owner", "name")))
        if repo is None:
            raise web.HTTPNotFound(headers={"X-Error-Code": "RepoNotFound"})
        revision = request.match_info.get("revision", "main")
        if revision not in ("main", repo.commit, *repo.branches):
            raise web.HTTPNotFound(headers={"X-Error-Code": "RevisionNotFound"})
        return repo

    async def _info(self, request: web.Request) -> web.Response:
        repo = self._repo(request)
        siblings = [
            {
                "rfilename": name,
                "size": len(content),
                "blobId": "0" * 40,
                "lfs": {"sha256": repo.sha256(name), "size": len(content), "pointerSize": 134},
            }
            for name, content in repo.files.items()
        ]
        card = {"language": repo.language} if repo.language else {}
        name = request.path.removeprefix("/api/models/").partition("/revision/")[0]
        return web.json_response(
            {"id": name, "modelId": name, "sha": repo.commit, "siblings": siblings, "cardData": card, "tags": []}
        )

    async def _file(self, request: web.Request) -> web.StreamResponse:
        repo, name = self._repo(request), request.match_info["file"]
        if repo.token and request.headers.get("Authorization") != f"Bearer {repo.token}":
            raise web.HTTPForbidden(headers={"X-Error-Code": "GatedRepo", "X-Repo-Commit": repo.commit})
        content, digest = repo.files[name], repo.sha256(name)
        headers = {
            "ETag": f'"{digest}"',
            "X-Linked-ETag": f'"{digest}"',
            "X-Linked-Size": str(len(content)),
            "X-Repo-Commit": repo.commit,
            "Accept-Ranges": "bytes",
        }
        if request.method == "HEAD":
            return web.Response(headers={**headers, "Content-Length": str(len(content))})
        wanted = request.headers.get("Range", "")
        repo.asked.append(wanted)
        begin = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
        if wanted:
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        answer = web.StreamResponse(status=206 if wanted else 200, headers=headers)
        answer.content_length = len(content) - begin
        await answer.prepare(request)
        transport = request.transport
        assert transport is not None
        if repo.cuts:
            await answer.write(content[begin : begin + repo.cuts.pop(0)])
            transport.close()
            return answer
        if repo.stall is not None:
            await answer.write(content[begin : begin + repo.stall])
            repo.stalled.set()
            while not transport.is_closing():
                await asyncio.sleep(0.05)
            return answer
        await answer.write(content[begin:])
        return answer
