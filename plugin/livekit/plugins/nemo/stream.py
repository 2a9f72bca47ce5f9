"""SpeechStream: one LiveKit audio input on one stream of the engine, reopened when the engine fails."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import numpy as np
from livekit.agents import APIConnectionError, APIConnectOptions, APIError, stt
from livekit.agents.types import NOT_GIVEN, NotGivenOr
from livekit.agents.utils import aio

from livekit import rtc
from nemostream.client import ClientStream
from nemostream.errors import StreamClosed
from nemostream.protocol import SAMPLE_RATE, Ended, Endpointing, Failed, Final

from .audio import AudioEdge, Pcm, samples, to_frame
from .errors import api_error, failed_error
from .events import Clock, EventMapper, spoken
from .options import STTOptions
from .replay import Ask, Replay
from .usage import PeriodicCollector

if TYPE_CHECKING:
    from .stt import STT


class SpeechStream(stt.RecognizeStream):
    """Made by `STT.stream()`. Takes frames of 8 to 48 kHz, mono or stereo; every flush is answered by one FINAL.

    An APIError of the engine is retried by the base class, which calls `_run` again on the same object: the audio since
    the last final is pushed again then, so nothing that was said is lost.
    """

    class _MuteSentinel(stt.RecognizeStream._FlushSentinel):
        """The source was muted: what is pending is final, no frames follow."""

    class _UnmuteSentinel(stt.RecognizeStream._FlushSentinel):
        """The source is heard again, `samples` of time later."""

        def __init__(self, samples: int) -> None:
            self.samples = samples

    def __init__(self, *, stt: STT, opts: STTOptions, conn_options: APIConnectOptions) -> None:
        super().__init__(stt=stt, conn_options=conn_options, sample_rate=SAMPLE_RATE)
        self._nemo = stt
        self._opts = opts
        self._edge = AudioEdge()
        self._muted_at: float | None = None
        self._clock = Clock()
        self._mapper = EventMapper(self._clock, stt.speaker_id)
        self._replay = Replay()
        self._usage = PeriodicCollector(self._report_usage)
        self._engine_stream: ClientStream | None = None
        self._input_ended = False
        self._offset_of_attempt: float | None = None

    @property
    def ended(self) -> bool:
        """No more audio is taken: the input was ended, or the stream failed for good or was closed."""
        return self._input_ch.closed or self._event_ch.closed

    def push_frame(self, frame: rtc.AudioFrame) -> None:
        """Push audio to be recognized; frames that come while muted are dropped.

        Raises:
            ValueError: a rate outside 8 to 48 kHz, or another rate than the frames before.
        """
        self._check_input_not_ended()
        self._check_not_closed()
        if self._muted_at is None:
            self._push_pcm(self._edge.push(frame))

    def flush(self) -> None:
        """Ask for what is pending as a FINAL now."""
        self._check_input_not_ended()
        self._check_not_closed()
        self._push_pcm(self._edge.drain())
        super().flush()

    def mute(self) -> None:
        """The source was muted: finalise what is pending; the stream costs no compute until `unmute`."""
        if self._muted_at is None and not self.ended:
            self._push_pcm(self._edge.drain())
            self._muted_at = time.monotonic()
            self._input_ch.send_nowait(self._MuteSentinel())

    def unmute(self) -> None:
        """Frames come again; the time in between counts as a gap, so that times stay true."""
        if self._muted_at is not None and not self.ended:
            gap = int((time.monotonic() - self._muted_at) * SAMPLE_RATE)
            self._muted_at = None
            self._clock.hear(gap)
            self._input_ch.send_nowait(self._UnmuteSentinel(gap))

    def update_options(
        self,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        endpointing: NotGivenOr[Endpointing] = NOT_GIVEN,
        keyterms: NotGivenOr[list[str]] = NOT_GIVEN,
    ) -> None:
        """`endpointing` from the next frame on, `language` from the next chunk on, `keyterms` from the next segment
        on."""
        before = self._opts
        self._opts = self._nemo.merge(before, language=language, endpointing=endpointing, keyterms=keyterms)
        if self._engine_stream is not None:
            self._update(self._engine_stream, before)

    async def _run(self) -> None:
        if self._offset_of_attempt is not None:
            # The base class adds the wall time of the lost attempt, for plugins whose clock starts at zero again. Ours
            # goes on: what was said meanwhile waits in the channel or in the replay.
            self._start_time_offset = self._offset_of_attempt
            self._mapper.joined = not self._replay.empty
        stream: ClientStream | None = None
        try:
            stream = await self._open()
            await self._converse(stream)
        except APIError:
            raise
        except Exception as error:
            raise api_error(error) from error
        finally:
            self._offset_of_attempt = self._start_time_offset
            self._engine_stream = None
            if stream is not None:
                # No await: the row is freed whenever the engine gets to it.
                stream.close(drain=False, keep=True)
                self._nemo.leave(stream, self._opts)

    async def _open(self) -> ClientStream:
        asked_at = time.perf_counter()
        resume = None if self._replay.end else await self._nemo.left_by(self._opts)
        asked = self._opts
        stream = await self._nemo.open(asked, self._conn_options.timeout, resume=resume)
        assert stream.started is not None
        self._engine_stream = stream
        self._clock.origin = self._replay.start - stream.started.at_sample
        self._mapper.language = spoken(stream.started.language)
        self._update(stream, asked)  # they may have changed while the stream was opening
        self._report_connection_acquired(time.perf_counter() - asked_at, False)
        return stream

    def _update(self, stream: ClientStream, before: STTOptions) -> None:
        """Tell the engine's stream, which was opened or updated with `before`, what has changed."""
        opts = self._opts
        if opts == before:
            return
        try:
            stream.update(opts.endpointing, opts.language, opts.keyterms)
        except StreamClosed:
            return  # it is ending; should another take its place, that is opened with these
        if opts.language != before.language and opts.language is not None:
            self._mapper.language = opts.language

    async def _converse(self, stream: ClientStream) -> None:
        sending = asyncio.create_task(self._send(stream), name="nemo.SpeechStream.send")
        receiving = asyncio.create_task(self._receive(stream), name="nemo.SpeechStream.receive")
        try:
            await asyncio.gather(sending, receiving)
        finally:
            await aio.cancel_and_wait(sending, receiving)

    async def _send(self, stream: ClientStream) -> None:
        for part in self._replay.again():
            if isinstance(part, Ask):
                part.flush_id = stream.flush()
            else:
                stream.push(part)
        async for item in self._input_ch:
            if isinstance(item, rtc.AudioFrame):
                heard = samples(np.frombuffer(item.data, np.int16))
                self._replay.append(heard)
                self._usage.push(item.duration)
                stream.push(heard)
            elif isinstance(item, self._MuteSentinel):
                stream.mute()
            elif isinstance(item, self._UnmuteSentinel):
                self._replay.skip(item.samples)
                stream.unmute()
                stream.gap(item.samples)
            else:
                self._usage.flush()
                self._replay.asked(stream.flush())
        self._usage.flush()
        self._input_ended = True
        stream.close(drain=True)

    async def _receive(self, stream: ClientStream) -> None:
        async for event in stream:
            self._clock.offset = self.start_time_offset
            for speech_event in self._mapper.map(event):
                self._event_ch.send_nowait(speech_event)
            if isinstance(event, Final):
                self._replay.settle(event, self._clock.origin)
            elif isinstance(event, Failed):
                raise failed_error(event)
            elif isinstance(event, Ended) and not self._input_ended:
                raise APIConnectionError("the engine ended the stream")

    def _push_pcm(self, pcm: Pcm) -> None:
        if len(pcm):
            self._clock.hear(len(pcm))
            super().push_frame(to_frame(pcm))

    def _report_usage(self, seconds: float) -> None:
        self._event_ch.send_nowait(
            stt.SpeechEvent(
                stt.SpeechEventType.RECOGNITION_USAGE, recognition_usage=stt.RecognitionUsage(audio_duration=seconds)
            )
        )
