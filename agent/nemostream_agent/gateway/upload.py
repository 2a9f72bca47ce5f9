"""A sound file that a client has sent, through the engine as a batch stream: live ones come first.

async with transcribing(service, request, file, options, who, "transcribe") as upload:
    async for event in upload: ...       # Interim and Final, until all is said
    upload.seconds, upload.language

The file stays where the form's parser has put it, in a spooled temporary file, and is never decoded further than
pace.AHEAD before the engine.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import BinaryIO

from starlette.requests import Request

from nemostream.client import ClientStream
from nemostream.errors import AudioError, StreamClosed, UnsupportedChunk
from nemostream.protocol import SAMPLE_RATE, Ended, Failed, Final, Interim, Usage

from .chunks import largest_chunk_ms
from .errors import POLICY, TRY_AGAIN, Refusal, bad_data, failure, refusal, too_big
from .formats import DEMUXERS
from .pace import Pace
from .service import DEFAULT, Service
from .settings import Clip, StreamOptions
from .sound_file import SoundFile

logger = logging.getLogger("nemostream.gateway")

ANY = Clip()


@asynccontextmanager
async def transcribing(
    service: Service,
    request: Request,
    file: BinaryIO,
    options: StreamOptions,
    who: str,
    protocol: str,
    clip: Clip = ANY,
) -> AsyncIterator[Upload]:
    """The file's transcript; `options` are what was asked for. It ends when the client of `request` goes away.

    Raises:
        Refusal: no place, no sound file, too long or too short, or nobody can have what was asked for. Nothing was
            transcribed then.
    """
    # The gateway's own chunk size is that of live streams: see chunks.py.
    options = dataclasses.replace(service.options(options), chunk_ms=options.chunk_ms)
    async with service.admitted(who, protocol) as note:
        sound = SoundFile(file, service.decoding)
        seconds = _clipped(await _length(sound, request, service.settings.limits.upload_seconds), clip)
        upload = Upload(await _opened(service, options), service, options.model or DEFAULT, seconds)
        tasks = [
            asyncio.create_task(work, name="gateway.upload") for work in (upload.feed(sound), upload.watch(request))
        ]
        try:
            yield upload
        finally:
            note(seconds=round(upload.pushed, 3), finals=upload.finals)
            upload.drop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


class Upload:
    """Made by `transcribing`.

    Attributes:
        bundle, model: the model's hash, and its name for clients.
        seconds: of audio that is to be heard.
        language: the last one that the model said it heard, or the stream's.
        finals: with text, so far.
    """

    def __init__(self, stream: ClientStream, service: Service, model: str, seconds: float) -> None:
        assert stream.started is not None
        self.bundle, self.model, self.seconds = stream.started.bundle, model, seconds
        self.language = stream.started.language
        self.finals = 0
        self._stream, self._service = stream, service
        self._pace = Pace(stream)
        self._error: Refusal | None = None

    @property
    def pushed(self) -> float:
        """Seconds that the engine was given."""
        return self._stream.at_sample / SAMPLE_RATE

    async def __aiter__(self) -> AsyncIterator[Interim | Final]:
        """
        Raises:
            Refusal: it could not be transcribed to the end.
        """
        async for event in self._stream:
            if isinstance(event, Usage):
                self._pace.heard(event.total)
                self._service.metrics.audio_seconds.inc(event.samples / SAMPLE_RATE)
            elif isinstance(event, (Interim, Final)):
                self._service.heard(event)
                self.language = event.language or self.language
                self.finals += isinstance(event, Final) and bool(event.words)
                self._service.heard(event)
                yield event
            elif isinstance(event, (Failed, Ended)):
                self._pace.over()
                if isinstance(event, Failed):
                    self._error = self._error or failure(event)
        if self._error is not None:
            raise self._error

    async def feed(self, sound: SoundFile) -> None:
        """The file to the engine."""
        try:
            async for block in sound.samples(round(self.seconds * SAMPLE_RATE)):
                self._stream.push(block)
                await self._pace.wait()
            self._stream.close()
        except StreamClosed:
            pass  # whose end is an event
        except Exception as error:
            told = refusal(error)
            if told.status == 500:
                logger.exception("an upload failed")
            self._fail(told)

    async def watch(self, request: Request) -> None:
        """Until there is a reason to end before the file does."""
        seconds = self._service.settings.limits.session_seconds
        leaving = asyncio.create_task(_left(request))
        ending = asyncio.create_task(self._service.ending.wait())
        try:
            await asyncio.wait((leaving, ending), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            ending.cancel()
        if leaving.done():
            self._fail(gone())
        elif ending.done():
            self._fail(Refusal(503, TRY_AGAIN, "draining", "the gateway is shutting down; send the file again", 1.0))
        else:
            self._fail(
                Refusal(503, TRY_AGAIN, "too_long", f"it took longer than {seconds:g} s; send a part of it", 1.0)
            )

    def drop(self) -> None:
        """Nobody waits for it any more."""
        self._stream.close(drain=False)
        self._pace.over()

    def _fail(self, error: Refusal) -> None:
        self._error = self._error or error
        self.drop()


def gone() -> Refusal:
    """Nobody hears it: the client is gone. (The status is the one that nginx gives it.)"""
    return Refusal(499, POLICY, "gone", "the client is gone")


async def _left(request: Request) -> None:
    """Until the client is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _length(sound: SoundFile, request: Request, most: float) -> float:
    """Seconds of sound. Headers lie, and decoding costs a hundredth of transcribing: so what is too long is known
    before any of it is transcribed.

    Raises:
        Refusal: no sound, or too much of it; the client is gone.
    """
    seconds = 0.0
    try:
        async for seconds in sound.elapsed():
            if seconds > most:
                raise too_big(f"the audio is longer than {most:g} s, the limit; cut it into parts")
            if await request.is_disconnected():
                raise gone()
    except AudioError as error:
        raise bad_data(f"{error}; send {', '.join(DEMUXERS)}") from error
    if not seconds:
        raise bad_data("there is no sound in the file")
    return seconds


def _clipped(seconds: float, clip: Clip) -> float:
    """Seconds that are to be heard.

    Raises:
        Refusal: the file is too short or too long.
    """
    longest = math.inf if clip.longest is None else clip.longest
    if clip.policy == "reject" and not clip.shortest <= seconds <= longest:
        end = "or more" if clip.longest is None else f"to {clip.longest:g}"
        message = f"the audio is {seconds:.2f} s long; this gateway takes {clip.shortest:g} {end} s"
        raise Refusal(422, POLICY, "duration", message)
    return min(max(seconds, clip.shortest), longest)


async def _opened(service: Service, options: StreamOptions) -> ClientStream:
    """Raises Refusal."""
    if options.chunk_ms is not None:
        return await service.stream(options, "batch")
    largest = await asyncio.to_thread(largest_chunk_ms, options.model)
    try:
        return await service.stream(dataclasses.replace(options, chunk_ms=largest), "batch")
    except Refusal as error:
        if options.model is not None or not isinstance(error.__cause__, UnsupportedChunk):
            raise
        return await service.stream(options, "batch")  # the engine was started with another default model
