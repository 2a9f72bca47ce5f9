"""STT: speech-to-text for LiveKit Agents on an engine of this machine.

session = AgentSession(stt=nemo.STT(), ...)
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Literal

import numpy as np
from livekit.agents import APIConnectOptions, APIError, LanguageCode, stt
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS, NOT_GIVEN, NotGivenOr
from livekit.agents.utils import AudioBuffer, is_given, shortuuid

from nemostream import errors, registry
from nemostream.client import Client, ClientStream
from nemostream.engine_config import EngineConfig
from nemostream.keyterms import MAX_CHARACTERS, MAX_TERMS
from nemostream.models import catalog
from nemostream.protocol import SAMPLE_RATE, Endpointing, Failed, Final, Priority, Word
from nemostream.remote import Shared

from .audio import mono, resample, samples
from .errors import api_error, failed_error
from .events import Clock, speech_data, spoken
from .log import logger
from .options import STTOptions
from .stream import SpeechStream

if TYPE_CHECKING:
    from nemostream.registry import AnyEngine

KEEP_SECONDS = 10.0
"""For so long a stream that was closed can be gone on with."""
KEEP_WAIT = 0.2
"""Seconds that a new stream waits for what the last one left."""


class STT(stt.STT[Literal["metrics_collected", "error"]]):
    """Streaming speech-to-text with a cache-aware NeMo model.

    Args:
        model: a name (`nemostream models` lists them; `nemostream download` brings those of the hub) or the path of a
            bundle or of a .nemo file; the embedded English model by default.
        chunk_ms: audio per step, one that the bundle offers; smaller is faster and less accurate.
        language: for models that speak several; else the bundle's own.
        endpointing: when an utterance ends without being asked to; the model's own way by default.
        keyterms: names and phrases, up to 1,000, that are heard more easily; those of the session come beside them.
        skip_silence: do not run the model on long silence; docs/capacity.md says what that saves and costs.
        speaker_id: who speaks, where all of this STT's audio is one known person's; then every transcript says so,
            which LiveKit's MultiSpeakerAdapter asks for. The model itself tells no speakers apart.
        engine: "shared" is the machine's engine, a process of its own that all processes use and that is started when
            it is first needed (docs/sharing.md); "local" shares one among the STTs of this process; or an Engine or
            RemoteEngine that the caller owns.
        device: "cuda" for a GPU (docs/gpu.md), of the engine that is started for this STT; otherwise NEMOSTREAM_DEVICE
            decides, or it is "cpu". An engine that runs already stays where it is.

    Raises:
        ValueError: an option that no bundle could satisfy.
    """

    def __init__(
        self,
        *,
        model: NotGivenOr[str] = NOT_GIVEN,
        chunk_ms: NotGivenOr[int] = NOT_GIVEN,
        language: NotGivenOr[str] = NOT_GIVEN,
        endpointing: NotGivenOr[Endpointing] = NOT_GIVEN,
        keyterms: NotGivenOr[list[str]] = NOT_GIVEN,
        skip_silence: NotGivenOr[bool] = NOT_GIVEN,
        speaker_id: NotGivenOr[str] = NOT_GIVEN,
        engine: Literal["shared", "local"] | AnyEngine = "shared",
        device: NotGivenOr[Literal["cpu", "cuda"]] = NOT_GIVEN,
    ) -> None:
        super().__init__(
            capabilities=stt.STTCapabilities(
                streaming=True,
                interim_results=True,
                diarization=is_given(speaker_id),
                aligned_transcript="word",
                offline_recognize=True,
                manual_flush=True,
                keyterms=True,
            )
        )
        if isinstance(engine, str) and engine not in ("shared", "local"):
            raise ValueError(f"engine must be 'shared', 'local' or an Engine, not {engine!r}")
        where = device if is_given(device) else os.environ.get("NEMOSTREAM_DEVICE") or None
        if where not in (None, "cpu", "cuda"):
            raise ValueError(f"device must be 'cpu' or 'cuda', not {where!r}")
        if is_given(device) and not isinstance(engine, str):
            raise ValueError("device is the engine's: give it to the engine that is handed over")
        self._opts = self.merge(
            STTOptions(),
            model=model,
            chunk_ms=chunk_ms,
            language=language,
            endpointing=endpointing,
            keyterms=keyterms,
            skip_silence=skip_silence,
        )
        self._session_keyterms: list[str] = []
        self.speaker_id = speaker_id if is_given(speaker_id) else None
        self._owned_engine = None if isinstance(engine, str) else engine
        self._where: EngineConfig | Shared = (
            EngineConfig(device="cuda" if where == "cuda" else "cpu") if engine == "local" else _shared(where)
        )
        self._shared_engine: AnyEngine | None = None
        self._release: weakref.finalize[..., STT] | None = None
        self._clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Client] = weakref.WeakKeyDictionary()
        self._streams: weakref.WeakSet[SpeechStream] = weakref.WeakSet()
        self._left: tuple[ClientStream, STTOptions, float] | None = None

    @property
    def model(self) -> str:
        return self._opts.model or catalog.DEFAULT

    @property
    def provider(self) -> str:
        return "NeMo"

    @staticmethod
    def merge(
        opts: STTOptions,
        *,
        model: NotGivenOr[str] = NOT_GIVEN,
        chunk_ms: NotGivenOr[int] = NOT_GIVEN,
        language: NotGivenOr[str] = NOT_GIVEN,
        endpointing: NotGivenOr[Endpointing] = NOT_GIVEN,
        keyterms: NotGivenOr[list[str]] = NOT_GIVEN,
        skip_silence: NotGivenOr[bool] = NOT_GIVEN,
    ) -> STTOptions:
        """`opts` with what is given put in its place, checked."""
        return STTOptions(
            model=model if is_given(model) else opts.model,
            chunk_ms=chunk_ms if is_given(chunk_ms) else opts.chunk_ms,
            language=LanguageCode(language) if is_given(language) else opts.language,
            endpointing=endpointing if is_given(endpointing) else opts.endpointing,
            keyterms=tuple(dict.fromkeys(keyterms)) if is_given(keyterms) else opts.keyterms,
            skip_silence=skip_silence if is_given(skip_silence) else opts.skip_silence,
        )

    def update_options(
        self,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        endpointing: NotGivenOr[Endpointing] = NOT_GIVEN,
        keyterms: NotGivenOr[list[str]] = NOT_GIVEN,
    ) -> None:
        """For the streams that are open too: `endpointing` from the next frame on, `language` from the next chunk on,
        `keyterms` from the next segment on."""
        self._opts = self.merge(self._opts, language=language, endpointing=endpointing, keyterms=keyterms)
        for stream in self._streams:
            stream.update_options(
                language=language,
                endpointing=endpointing,
                keyterms=self._keyterms() if is_given(keyterms) else NOT_GIVEN,
            )

    def _update_session_keyterms(self, keyterms: list[str]) -> None:
        """The framework's own, of the session and of what it detects: they come beside the user's."""
        self._session_keyterms = [term for term in keyterms if term.strip() and len(term) <= MAX_CHARACTERS]
        for stream in self._streams:
            stream.update_options(keyterms=self._keyterms())

    def _keyterms(self) -> list[str]:
        terms = list(dict.fromkeys([*self._opts.keyterms, *self._session_keyterms]))
        if len(terms) > MAX_TERMS:
            logger.warning("of %d keyterms the first %d are used", len(terms), MAX_TERMS)
        return terms[:MAX_TERMS]

    def stream(
        self, *, language: NotGivenOr[str] = NOT_GIVEN, conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS
    ) -> SpeechStream:
        # A copy, so that a language given here stays with this stream.
        opts = self.merge(self._opts, language=language, keyterms=self._keyterms())
        stream = SpeechStream(stt=self, opts=opts, conn_options=conn_options)
        self._streams.add(stream)
        return stream

    def prewarm(self) -> None:
        """Start loading the model, on a thread of its own."""
        engine = self._engine()
        threading.Thread(target=_load, args=(engine, self._opts.model), name="nemo-prewarm", daemon=True).start()

    async def aclose(self) -> None:
        """Close this STT's streams and let go of the engine, which others may go on using."""
        for stream in list(self._streams):
            await stream.aclose()
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            client.close()
        self._shared_engine = None
        if self._release is not None:
            self._release()

    def client(self) -> Client:
        """The client of the running loop."""
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = self._clients[loop] = Client(self._engine())
        return client

    async def open(
        self, opts: STTOptions, timeout: float, *, priority: Priority = "live", resume: bytes | None = None
    ) -> ClientStream:
        """A stream of the engine. A `resume` that no longer fits is done without."""
        try:
            return await self.client().open(
                model=opts.model,
                chunk_ms=opts.chunk_ms,
                language=opts.language,
                endpointing=opts.endpointing,
                keyterms=opts.keyterms,
                skip_silence=opts.skip_silence,
                priority=priority,
                resume=resume,
                timeout=timeout,
            )
        except errors.SnapshotError:
            return await self.open(opts, timeout, priority=priority)

    def leave(self, stream: ClientStream, opts: STTOptions) -> None:
        """A speech stream was closed; the next one may go on with its state (`left_by`)."""
        self._left = stream, opts, time.monotonic()

    async def left_by(self, opts: STTOptions) -> bytes | None:
        """What the last speech stream heard, if the new one is its successor: LiveKit closes and opens streams in the
        middle of a call. Only where this STT has no other stream, so that no voice goes on with another's state."""
        left, self._left = self._left, None
        if left is None or sum(not s.ended for s in self._streams) != 1:
            return None
        stream, before, at = left
        same = dataclasses.replace(before, endpointing=opts.endpointing, keyterms=opts.keyterms) == opts
        if not same or time.monotonic() - at > KEEP_SECONDS:
            return None
        try:
            return await asyncio.wait_for(asyncio.shield(stream.kept), KEEP_WAIT)
        except TimeoutError:
            return None

    def _engine(self) -> AnyEngine:
        if self._owned_engine is not None:
            return self._owned_engine
        if self._shared_engine is None:
            self._shared_engine = engine = registry.acquire(self._where)
            self._release = weakref.finalize(self, registry.release, engine)
            # At exit the process takes the engine's daemon thread with it.
            self._release.atexit = False
        return self._shared_engine

    async def _recognize_impl(
        self, buffer: AudioBuffer, *, language: NotGivenOr[str] = NOT_GIVEN, conn_options: APIConnectOptions
    ) -> stt.SpeechEvent:
        opts = self.merge(self._opts, language=language, keyterms=self._keyterms())
        frames = buffer if isinstance(buffer, list) else [buffer]
        pcm = np.concatenate([mono(frame) for frame in frames] or [np.zeros(0, np.int16)])
        pcm = resample(pcm, frames[0].sample_rate if frames else SAMPLE_RATE)
        stream: ClientStream | None = None
        try:
            stream = await self.open(opts, conn_options.timeout, priority="batch")
            assert stream.started is not None
            stream.push(samples(pcm))
            stream.close(drain=True)
            texts: list[str] = []
            words: list[Word] = []
            heard = spoken(stream.started.language)
            async for event in stream:
                if isinstance(event, Failed):
                    raise failed_error(event)
                if isinstance(event, Final) and event.text:
                    texts.append(event.text)
                    words.extend(event.words)
                    heard = spoken(event.language or heard)
        except APIError:
            raise
        except Exception as error:
            raise api_error(error) from error
        finally:
            if stream is not None:
                stream.close(drain=False)
        start, end = (words[0].start_sample, words[-1].end_sample) if words else (None, None)
        data = speech_data(heard, " ".join(texts), words, start, end, Clock(), self.speaker_id)
        return stt.SpeechEvent(stt.SpeechEventType.FINAL_TRANSCRIPT, shortuuid("nemo_"), [data])


def _shared(device: str | None) -> Shared:
    """Where the engine is a service, NEMOSTREAM_SPAWN=0 keeps jobs from starting another while it restarts."""
    return Shared(spawn=os.environ.get("NEMOSTREAM_SPAWN", "1") != "0", device=device)


def _load(engine: AnyEngine, model: str | None) -> None:
    try:
        engine.load(model)
    except errors.NemostreamError as error:
        # The first stream will raise it where it can be handled.
        logger.warning("could not prewarm the model: %s", error)
