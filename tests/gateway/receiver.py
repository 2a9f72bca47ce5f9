"""Receiver: what an OTLP/HTTP collector hears, on a port of its own."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Receiver:
    """with Receiver() as receiver: receiver.url, receiver.wait_for(1)"""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.services: set[str] = set()
        self._spans: list[Span] = []
        self._came = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver._take(self.path, self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def _take(self, path: str, body: bytes) -> None:
        assert path == "/v1/traces"
        with self._came:
            self.bodies.append(body)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                names = {a.key: a.value.string_value for a in resource.resource.attributes}
                self.services.add(names["service.name"])
                self._spans += [span for scope in resource.scope_spans for span in scope.spans]
            self._came.notify_all()

    def wait_for(self, trace_id: str, seconds: float = 30.0) -> list[Span]:
        """The spans of that trace, once there is one."""
        deadline = time.monotonic() + seconds
        with self._came:
            while not (found := [s for s in self._spans if s.trace_id.hex() == trace_id]):
                assert self._came.wait(deadline - time.monotonic()), f"no span of {trace_id}"
            return found

    def __enter__(self) -> Receiver:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
