"""OpenTelemetry: a span for each stream and each upload, sent where OTEL_EXPORTER_OTLP_ENDPOINT says.

finish = configure()                          # nothing unless the environment names an endpoint
with parent(request.headers), span("stream", protocol="ws") as note:
    note(seconds=12.5)
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import context, propagate, trace

SERVICE = "nemostream-gateway"
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""The names of the OpenTelemetry specification."""

LEAVE_SECONDS = 2.0
"""At the end, for a collector that does not answer: whoever stops the gateway waits."""

Note = Callable[..., None]

_tracer = trace.get_tracer("nemostream.gateway")  # a proxy: it becomes real when a provider is set


def configure() -> Callable[[], None]:
    """Send spans from now on, if the environment says where; OTEL_SERVICE_NAME and the other names of the specification
    count too. What is given sends what is left, at the end."""
    if not any(os.environ.get(name) for name in ENDPOINTS):
        return lambda: None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    name = os.environ.get("OTEL_SERVICE_NAME", SERVICE)
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    exporter = OTLPSpanExporter()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)

    def finish() -> None:
        giving_up = threading.Timer(LEAVE_SECONDS, exporter.shutdown)  # it tries no more then
        giving_up.start()
        provider.shutdown()
        giving_up.cancel()

    return finish


@contextmanager
def parent(headers: Mapping[str, str]) -> Iterator[None]:
    """Spans within are children of the one that `headers` name (W3C trace context), if they name one."""
    token = context.attach(propagate.extract(headers))
    try:
        yield
    finally:
        context.detach(token)


@contextmanager
def span(name: str, **facts: object) -> Iterator[Note]:
    """A span; what is given notes more facts of it. Of an error it keeps the kind alone: a message, or a traceback, may
    quote what a client sent."""
    with _tracer.start_as_current_span(
        name, kind=trace.SpanKind.SERVER, record_exception=False, set_status_on_exception=False
    ) as current:

        def note(**more: object) -> None:
            for key, value in more.items():
                current.set_attribute(f"nemostream.{key}", value if isinstance(value, (int, float)) else str(value))

        note(**facts)
        try:
            yield note
        except Exception as error:
            kind = str(getattr(error, "code", type(error).__name__))
            current.set_status(trace.StatusCode.ERROR, kind)
            raise
