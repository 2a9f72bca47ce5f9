"""How a gateway runs: plain data, made of the command's options (__init__ of cli.py says which)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nemostream.protocol import NO_ENDPOINT, Endpointing

from .ice import Ice

Decoder = Literal["rnnt", "ctc"]


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """What a client asks of a stream; None: the gateway's own.

    Attributes:
        endpointing: None: the model's own; `protocol.NO_ENDPOINT` for none.
        encoding: of the audio (pcm.ENCODINGS); None: a container, whose kind is found out.
        sample_rate: Hz; of no meaning in a container.
        channels: interleaved; they are mixed into one.
    """

    model: str | None = None
    chunk_ms: int | None = None
    language: str | None = None
    decoder: Decoder | None = None
    keyterms: tuple[str, ...] = ()
    endpointing: Endpointing | None = None
    encoding: str | None = "pcm16"
    sample_rate: int = 16_000
    channels: int = 1


@dataclass(frozen=True, slots=True)
class Limits:
    """What one gateway takes on. A stream is a live one or an upload that is being transcribed.

    Attributes:
        soft: streams from which /health and the metrics say that it is time for another machine.
        hard: streams beyond which the next one is refused.
        per_client: streams of one API key, token identity or address; None: no limit.
        message_bytes: of one WebSocket message.
        upload_bytes: of one upload.
        upload_seconds: of audio in one upload.
        idle_seconds: a live stream without a message for so long is ended.
        session_seconds: so is one that is as old.
        stalled_seconds: so is one whose client does not read what is sent.
        drain_seconds: live streams may go on for so long after SIGTERM; then they get their final text.
        setup_seconds: a WHIP session whose connection takes longer is ended.
        readers: of captions, in all rooms at once.
    """

    soft: int = 200
    hard: int = 256
    per_client: int | None = None
    message_bytes: int = 4 << 20
    upload_bytes: int = 256 << 20
    upload_seconds: float = 3600.0
    idle_seconds: float = 60.0
    session_seconds: float = 4 * 3600.0
    stalled_seconds: float = 20.0
    drain_seconds: float = 10.0
    setup_seconds: float = 15.0
    readers: int = 1000


@dataclass(frozen=True, slots=True)
class Clip:
    """What /transcribe does with a duration outside `shortest`..`longest` seconds.

    Attributes:
        policy: "reject": 422; "clip": what is too long is cut, what is too short is filled with silence.
    """

    policy: Literal["reject", "clip"] = "reject"
    shortest: float = 0.0
    longest: float | None = None


@dataclass(frozen=True, slots=True)
class LiveKitRooms:
    """A LiveKit server, as browsers reach it (ws:// or wss://), and the key with which tokens for it are made."""

    url: str
    key: str
    secret: str


@dataclass(frozen=True, slots=True)
class Settings:
    """A gateway's.

    Attributes:
        host, port: where it listens; port 0: any free one.
        models: names or paths that clients may ask for by name; the first is the default. Empty: the embedded one.
        defaults: of streams. Its audio format is not used.
        device: of an engine that the gateway starts: "cpu", "cuda"; None: the engine's own default.
        max_batch: rows of one step of an engine that the gateway starts; None: as time allows.
        api_keys_file: lines "name:sha256"; see auth.py.
        api_keys: keys as they are, from the environment.
        livekit: LiveKit API key and secret whose tokens are let in; None: none.
        rooms: the LiveKit server whose rooms the pages offer; None: none.
        ice: servers and addresses of WebRTC.
        cors_origins: of pages elsewhere that may use this gateway; "*": all.
        log_text: transcripts may stand in the log.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    models: tuple[str, ...] = ()
    defaults: StreamOptions = field(default_factory=StreamOptions)
    device: str | None = None
    max_batch: int | None = None
    limits: Limits = field(default_factory=Limits)
    clip: Clip = field(default_factory=Clip)
    api_keys_file: Path | None = None
    api_keys: tuple[str, ...] = ()
    livekit: tuple[str, str] | None = None
    rooms: LiveKitRooms | None = None
    ice: Ice = field(default_factory=Ice)
    cors_origins: tuple[str, ...] = ()
    log_text: bool = False


def endpointing_of(ms: int | None) -> Endpointing:
    """A segment ends after so many ms of silence; None or 0: only when asked to."""
    return Endpointing(blank_ms=ms) if ms else NO_ENDPOINT
