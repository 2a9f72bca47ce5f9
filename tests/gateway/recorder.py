"""A recorder of HTTP between a client and a gateway, and a replay of what it has kept.

with Recorder(gateway.http) as recorder: ...       # clients talk to recorder.http
recorder.exchanges                                 # [{"request": ..., "response": ...}]
"""

from __future__ import annotations

import base64
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import httpx2 as httpx

KEPT = ("content-type", "authorization", "accept", "user-agent")
"""Headers of a request that say what a client is and wants."""


def send(url: str, request: dict[str, Any]) -> httpx.Response:
    """A kept request, to the byte."""
    body = base64.b64decode(request["body"])
    return httpx.request(request["method"], url + request["path"], content=body, headers=request["headers"], timeout=60)


class Recorder:
    """`exchanges`: what was said, in order."""

    def __init__(self, url: str) -> None:
        exchanges: list[dict[str, Any]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items() if name.lower() in KEPT}
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                request = {
                    "method": self.command,
                    "path": self.path,
                    "headers": headers,
                    "body": base64.b64encode(body).decode(),
                }
                answer = send(url, request)
                kind = answer.headers["content-type"]
                response = {"status": answer.status_code, "content-type": kind, "body": answer.text}
                exchanges.append({"request": request, "response": response})
                self.send_response(answer.status_code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        self.exchanges = exchanges
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Recorder:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
