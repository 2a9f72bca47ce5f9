"""`python -m nemostream_agent gateway`: options, the server, and the way to an end.

Every option has a name in the environment too; the second name is that of the servers that this one can take the place
of.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, Literal, cast

import typer
import uvicorn

from nemostream.errors import NemostreamError

from . import logs, tracing
from .app import create_app
from .ice import Ice, check
from .legacy import chunk_ms_of, device_of, unneeded
from .service import Service
from .settings import Clip, Limits, LiveKitRooms, Settings, StreamOptions, endpointing_of

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
_DEFAULT = Limits()


class Server(uvicorn.Server):
    """One that drains before it ends: on SIGTERM or SIGINT /health turns 503, nobody new is let in, and who is there
    gets the final text."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._drain: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for server in self.servers if self.started else ():
            for listening in server.sockets:
                host, port = listening.getsockname()[:2]
                # The one line on standard output: whoever started it with port 0 reads it.
                print(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        asyncio.get_running_loop().call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        """A second signal says that the streams are not to go on until they end by themselves."""
        if self._drain is None:
            self._drain = asyncio.create_task(self._end())
        else:
            self._service.ending.set()

    async def _end(self) -> None:
        await self._service.drain()
        self.should_exit = True


@app.command(help="Serve speech-to-text over HTTP and WebSocket.")
def gateway(
    host: Annotated[
        str, typer.Option(envvar=["NEMOSTREAM_HOST", "ASR_HOST"], help="address to listen on")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar=["NEMOSTREAM_PORT", "ASR_PORT"], min=0, max=65535, help="0: any that is free")
    ] = 8000,
    model: Annotated[
        list[str] | None,
        typer.Option(
            envvar=["NEMOSTREAM_MODEL", "ASR_MODEL"],
            help="what clients may ask for; the first is the default; may be repeated; default: the embedded model",
        ),
    ] = None,
    chunk_ms: Annotated[int | None, typer.Option(envvar="NEMOSTREAM_CHUNK_MS", help="audio per step")] = None,
    att_ctx: Annotated[
        str | None, typer.Option(envvar="ASR_ATT_CTX", help="the same, as a model's contexts: 70,1 is 160 ms")
    ] = None,
    decoder: Annotated[
        str | None, typer.Option(envvar=["NEMOSTREAM_DECODER", "ASR_DECODER"], help="rnnt or ctc")
    ] = None,
    language: Annotated[str | None, typer.Option(envvar="NEMOSTREAM_LANGUAGE", help="for models that take one")] = None,
    keyterm: Annotated[list[str] | None, typer.Option(help="a name or phrase to favour; may be repeated")] = None,
    endpointing_ms: Annotated[
        int | None,
        typer.Option(
            envvar="NEMOSTREAM_ENDPOINTING_MS", help="silence that ends a segment, 0 for none; default: the model's"
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            envvar=["NEMOSTREAM_DEVICE", "ASR_DEVICE"], help="cpu, or cuda for a GPU, of an engine that is started here"
        ),
    ] = None,
    max_batch: Annotated[
        int | None,
        typer.Option(
            envvar=["NEMOSTREAM_MAX_BATCH", "ASR_MAX_BATCH"],
            min=1,
            help="streams in one step of an engine that is started here",
        ),
    ] = None,
    step_ms: Annotated[str | None, typer.Option(envvar="ASR_STEP_MS", hidden=True)] = None,
    max_streams: Annotated[
        int, typer.Option(envvar="NEMOSTREAM_MAX_STREAMS", min=1, help="beyond these the next one is refused")
    ] = _DEFAULT.hard,
    soft_streams: Annotated[
        int | None,
        typer.Option(envvar="NEMOSTREAM_SOFT_STREAMS", help="from these on /health says crowded; default: 0.8 of them"),
    ] = None,
    client_streams: Annotated[
        int | None, typer.Option(envvar="NEMOSTREAM_CLIENT_STREAMS", min=1, help="of one client; default: no limit")
    ] = None,
    message_kb: Annotated[
        int, typer.Option(envvar="NEMOSTREAM_MESSAGE_KB", min=1, help="of one WebSocket message")
    ] = _DEFAULT.message_bytes >> 10,
    upload_mb: Annotated[
        int, typer.Option(envvar="NEMOSTREAM_UPLOAD_MB", min=1, help="of one upload")
    ] = _DEFAULT.upload_bytes >> 20,
    upload_seconds: Annotated[
        float, typer.Option(envvar="NEMOSTREAM_UPLOAD_SECONDS", min=1, help="of audio in one upload")
    ] = _DEFAULT.upload_seconds,
    idle_seconds: Annotated[
        float,
        typer.Option(envvar="NEMOSTREAM_IDLE_SECONDS", min=0.1, help="without a message, after which a stream ends"),
    ] = _DEFAULT.idle_seconds,
    session_seconds: Annotated[
        float, typer.Option(envvar="NEMOSTREAM_SESSION_SECONDS", min=1, help="that a connection may last")
    ] = _DEFAULT.session_seconds,
    stalled_seconds: Annotated[
        float, typer.Option(envvar="NEMOSTREAM_STALLED_SECONDS", min=0.1, help="in which a client must take a message")
    ] = _DEFAULT.stalled_seconds,
    drain_seconds: Annotated[
        float, typer.Option(envvar="NEMOSTREAM_DRAIN_SECONDS", min=0, help="that streams may go on after SIGTERM")
    ] = _DEFAULT.drain_seconds,
    setup_seconds: Annotated[
        float,
        typer.Option(envvar="NEMOSTREAM_SETUP_SECONDS", min=0.1, help="in which a WHIP session must be connected"),
    ] = _DEFAULT.setup_seconds,
    max_readers: Annotated[
        int, typer.Option(envvar="NEMOSTREAM_MAX_READERS", min=1, help="of captions in rooms")
    ] = _DEFAULT.readers,
    ice_server: Annotated[
        list[str] | None,
        typer.Option(envvar="NEMOSTREAM_ICE_SERVERS", help="stun:HOST or turn:HOST; may be repeated"),
    ] = None,
    ice_username: Annotated[str, typer.Option(envvar="NEMOSTREAM_ICE_USERNAME", help="for TURN")] = "",
    ice_credential: Annotated[
        str, typer.Option(envvar="NEMOSTREAM_ICE_CREDENTIAL", hidden=True, help="for TURN, from the environment")
    ] = "",
    turn_secret: Annotated[
        str, typer.Option(envvar="NEMOSTREAM_TURN_SECRET", hidden=True, help="instead of both: shared with TURN")
    ] = "",
    ice_address: Annotated[
        list[str] | None,
        typer.Option(
            envvar="NEMOSTREAM_ICE_ADDRESSES", help="of this machine, for WebRTC; default: all but the loopback"
        ),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(envvar="NEMOSTREAM_CORS_ORIGINS", help="of pages elsewhere, * for all; may be repeated"),
    ] = None,
    clip_policy: Annotated[
        str,
        typer.Option(envvar="NEMOSTREAM_CLIP_POLICY", help="reject or clip: /transcribe with another duration than:"),
    ] = "reject",
    clip_min_seconds: Annotated[float, typer.Option(envvar="NEMOSTREAM_CLIP_MIN_SECONDS", min=0)] = 0.0,
    clip_max_seconds: Annotated[float | None, typer.Option(envvar="NEMOSTREAM_CLIP_MAX_SECONDS", min=0.1)] = None,
    api_keys_file: Annotated[
        Path | None, typer.Option(envvar="NEMOSTREAM_API_KEYS_FILE", help="lines of `nemostream-agent key NAME`")
    ] = None,
    api_keys: Annotated[
        str, typer.Option(envvar="NEMOSTREAM_API_KEYS", hidden=True, help="from the environment, parted by commas")
    ] = "",
    livekit_tokens: Annotated[
        bool,
        typer.Option("--livekit-tokens", envvar="NEMOSTREAM_LIVEKIT_TOKENS", help="let LiveKit's access tokens in"),
    ] = False,
    livekit_url: Annotated[
        str | None,
        typer.Option(envvar="LIVEKIT_URL", help="ws:// or wss://, as browsers reach it: offer its rooms on the pages"),
    ] = None,
    livekit_key: Annotated[str, typer.Option(envvar="LIVEKIT_API_KEY", hidden=True)] = "",
    livekit_secret: Annotated[str, typer.Option(envvar="LIVEKIT_API_SECRET", hidden=True)] = "",
    log_format: Annotated[str, typer.Option(envvar="NEMOSTREAM_LOG_FORMAT", help="json or text")] = "json",
    log_text: Annotated[
        bool, typer.Option("--log-text", envvar="NEMOSTREAM_LOG_TEXT", help="finals may stand in it")
    ] = False,
) -> None:
    if api_keys and not api_keys.strip(", "):
        raise typer.BadParameter("NEMOSTREAM_API_KEYS holds no key; unset it to let everybody in")
    if livekit_tokens and not (livekit_key and livekit_secret):
        raise typer.BadParameter("--livekit-tokens needs LIVEKIT_API_KEY and LIVEKIT_API_SECRET")
    if livekit_url and not (livekit_key and livekit_secret):
        raise typer.BadParameter("--livekit-url needs LIVEKIT_API_KEY and LIVEKIT_API_SECRET")
    if livekit_url and not livekit_url.startswith(("ws://", "wss://")):
        raise typer.BadParameter(f"--livekit-url begins with ws:// or wss://, not {livekit_url}")
    for url in ice_server or ():
        try:
            check(url)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
    for name, value, among in (
        ("--decoder", decoder, ("rnnt", "ctc")),
        ("--log-format", log_format, ("json", "text")),
        ("--clip-policy", clip_policy, ("reject", "clip")),
    ):
        if value is not None and value not in among:
            raise typer.BadParameter(f"{name} is {' or '.join(among)}, not {value}")
    if chunk_ms is None and att_ctx is not None:
        chunk_ms = chunk_ms_of(att_ctx)
    logs.configure(cast(Literal["json", "text"], log_format))
    unneeded(step_ms)
    settings = Settings(
        host=host,
        port=port,
        models=tuple(model or ()),
        defaults=StreamOptions(
            chunk_ms=chunk_ms,
            language=language,
            decoder=cast(Literal["rnnt", "ctc"] | None, decoder),
            keyterms=tuple(keyterm or ()),
            endpointing=None if endpointing_ms is None else endpointing_of(endpointing_ms),
        ),
        device=device_of(device),
        max_batch=max_batch,
        limits=Limits(
            soft=soft_streams if soft_streams is not None else max(1, max_streams * 4 // 5),
            hard=max_streams,
            per_client=client_streams,
            message_bytes=message_kb << 10,
            upload_bytes=upload_mb << 20,
            upload_seconds=upload_seconds,
            idle_seconds=idle_seconds,
            session_seconds=session_seconds,
            stalled_seconds=stalled_seconds,
            drain_seconds=drain_seconds,
            setup_seconds=setup_seconds,
            readers=max_readers,
        ),
        clip=Clip(cast(Literal["reject", "clip"], clip_policy), clip_min_seconds, clip_max_seconds),
        api_keys_file=api_keys_file,
        api_keys=tuple(key.strip() for key in api_keys.split(",") if key.strip()),
        livekit=(livekit_key, livekit_secret) if livekit_tokens else None,
        rooms=LiveKitRooms(livekit_url, livekit_key, livekit_secret) if livekit_url else None,
        ice=Ice(tuple(ice_server or ()), ice_username, ice_credential, turn_secret, addresses=tuple(ice_address or ())),
        cors_origins=tuple(cors_origin or ()),
        log_text=log_text,
    )
    serve(settings)


def serve(settings: Settings) -> None:
    """Until SIGTERM or Ctrl-C.

    Raises:
        NemostreamError: it cannot start.
    """
    finish = tracing.configure()
    application = create_app(settings)
    config = uvicorn.Config(
        application,
        host=settings.host,
        port=settings.port,
        # It reads a message only when the last one was taken: a client that is too fast is held back by its socket.
        ws="websockets-sansio",
        ws_max_size=settings.limits.message_bytes,
        ws_per_message_deflate=False,  # audio does not shrink, and a few bytes may become a gigabyte
        log_config=None,
        access_log=False,
        server_header=False,
    )
    try:
        Server(config, application.state.service).run()
    finally:
        finish()


def main() -> None:
    """Run the command; what goes wrong is one sentence on standard error and exit status 1, or 2 for an option."""
    try:
        app(prog_name="nemostream-agent gateway", standalone_mode=False)
    except NemostreamError as error:
        typer.echo(f"nemostream-agent: {error}", err=True)
        sys.exit(1)
    except Exception as error:
        # Where typer keeps the base of its errors depends on its version.
        if (sentence := getattr(error, "format_message", None)) is None:
            raise
        typer.echo(f"nemostream-agent gateway: {sentence()}", err=True)
        sys.exit(2)
