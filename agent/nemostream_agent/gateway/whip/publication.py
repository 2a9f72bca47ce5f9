"""Publication: one WHIP session, from its offer to its last final. Packets of a peer go through a receiver into a
stream of the engine; what that says goes to the room.

publication = Publication(...)
answer = await publication.open()          # raises Refusal
await publication.end()                    # what was said becomes final first
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence

from aiortc import RTCDataChannel, RTCIceCandidate
from aiortc.rtp import RtpPacket

from nemostream.protocol import Pcm, Preflight

from .. import captions
from ..captions import Captioner, Speaker
from ..errors import GOING_AWAY, POLICY, Refusal, refusal
from ..ice import Ice
from ..rooms import Room, Rooms
from ..service import Service
from ..session import Session
from ..settings import StreamOptions
from .offer import Offer
from .peer import Peer
from .receiver import AudioReceiver, Gap, Stall

logger = logging.getLogger("nemostream.gateway")

FINISH_SECONDS = 5.0
"""In which the engine gives the last final of a session that ends."""
LINGER_SECONDS = 0.2
"""A data channel is given so long to deliver the last messages."""
SLOW_BYTES = 1 << 16
"""Waiting in a data channel: until it is read, no more messages are put there."""


class Publication:
    """
    Attributes:
        id: unguessable: who knows it may end the session.
        over: set when all is done and nothing is left.
    """

    def __init__(
        self, identity: str, who: str, room: str, name: str, offer: Offer, options: StreamOptions, ice: Ice
    ) -> None:
        self.id = identity
        self.over = asyncio.Event()
        self._who, self._room_name, self._offer, self._options, self._ice = who, room, offer, options, ice
        self._speaker = Speaker(identity[:8], name)
        self._receiver = AudioReceiver()
        self._peer = Peer(offer, ice.for_us(), ice.addresses, self._packet)
        self._peer.on_channel = self._channel
        self._session: Session | None = None
        self._room: Room | None = None
        self._rooms: Rooms | None = None
        self._ending = asyncio.Event()
        self._why: Refusal | None = None
        self._ssrc: int | None = None
        self._last_packet = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._readers: list[asyncio.Task[None]] = []
        self._running: asyncio.Task[None] | None = None

    async def open(self, service: Service, rooms: Rooms, setup_seconds: float) -> str:
        """The answer to the offer. The session goes on by itself.

        Raises:
            Refusal: no place, or nobody can have what it asks for.
        """
        answered: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._rooms = rooms
        self._running = asyncio.create_task(self._run(service, rooms, setup_seconds, answered), name="whip.session")
        try:
            return await asyncio.shield(answered)
        except asyncio.CancelledError:
            # Who asked is gone.
            self._ending.set()
            raise

    @property
    def username(self) -> str:
        """The peer's, in ICE."""
        return self._offer.ice.usernameFragment or ""

    def add_candidates(self, candidates: Sequence[RTCIceCandidate]) -> None:
        self._peer.add_candidates(candidates)

    async def end(self) -> None:
        """What is pending becomes final; comes back when all is over."""
        self._ending.set()
        await self.over.wait()

    async def _run(self, service: Service, rooms: Rooms, setup_seconds: float, answered: asyncio.Future[str]) -> None:
        try:
            async with service.open(self._options, self._who, "whip") as self._session:
                answer = await self._peer.answer()
                self._peer.connect()
                with rooms.speaking(self._room_name, self._speaker) as self._room:
                    answered.set_result(answer)
                    await self._talk_of_it(service, setup_seconds)
        except Exception as error:
            told = refusal(error)
            if not isinstance(error, Refusal):
                logger.exception("a WHIP session failed")
            if not answered.done():
                answered.set_exception(told)
            else:
                service.metrics.refused(told.code)
        finally:
            self._session = None
            if self._timer is not None:
                self._timer.cancel()
            await self._linger()
            for task in self._readers:
                task.cancel()
            await asyncio.gather(*self._readers, return_exceptions=True)
            await self._peer.close()
            self.over.set()

    async def _talk_of_it(self, service: Service, setup_seconds: float) -> None:
        """_talk; the room and the log are told how it ended."""
        assert self._session is not None and self._room is not None
        try:
            await self._talk(service, self._session, setup_seconds)
        except Exception as error:
            self._room.say(captions.failed(self._speaker, refusal(error)))
            raise
        finally:
            self._session.facts.update(room=self._room_name, **self._receiver.facts())

    async def _linger(self) -> None:
        """The last messages are on their way to the page."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                await asyncio.sleep(0)
                while self._peer.waiting() and not self._peer.ended.is_set():
                    await asyncio.sleep(0.02)

    async def _talk(self, service: Service, session: Session, setup_seconds: float) -> None:
        """Until the session ends, however it does.

        Raises:
            Refusal: why it was ended from this side.
        """
        writing = asyncio.create_task(self._write(service, session), name="whip.write")
        watching = asyncio.create_task(self._watch(service, setup_seconds), name="whip.watch")
        try:
            await asyncio.wait((writing, watching), return_when=asyncio.FIRST_COMPLETED)
            if not writing.done():
                self._drain()
                session.close()
                await asyncio.wait((writing,), timeout=FINISH_SECONDS)
            for task in (writing, watching):
                if task.done():
                    task.result()
            if self._why is not None:
                raise self._why
        finally:
            for task in (writing, watching):
                task.cancel()
            await asyncio.gather(writing, watching, return_exceptions=True)

    async def _write(self, service: Service, session: Session) -> None:
        captioner = Captioner(self._speaker, session)
        async for event in session:
            service.heard(event)
            if not isinstance(event, Preflight) and (message := captioner.message(event)) is not None:
                assert self._room is not None
                self._room.say(message)

    async def _watch(self, service: Service, setup_seconds: float) -> None:
        """Until it is to end; `_why` says so where that is for the other side to know."""
        limits = service.settings.limits
        began = time.monotonic()
        events = [self._ending, self._peer.ended, service.ending]
        waits = [asyncio.create_task(event.wait()) for event in events]
        try:
            while True:
                now = time.monotonic()
                setup = None if self._peer.connected.is_set() else began + setup_seconds
                idle = self._last_packet + limits.idle_seconds if setup is None else None
                oldest = began + limits.session_seconds
                if setup is not None and now >= setup:
                    self._why = Refusal(408, POLICY, "not_connected", f"no connection came within {setup_seconds:g} s")
                elif idle is not None and now >= idle:
                    self._why = Refusal(408, POLICY, "idle", f"no audio came for {limits.idle_seconds:g} s")
                elif now >= oldest:
                    self._why = Refusal(408, POLICY, "too_long", f"a session may last {limits.session_seconds:g} s")
                if self._why is not None:
                    return
                until = min(t for t in (setup, idle, oldest) if t is not None) - now
                done, _ = await asyncio.wait(waits, timeout=until, return_when=asyncio.FIRST_COMPLETED)
                if done:
                    if service.ending.is_set():
                        self._why = Refusal(503, GOING_AWAY, "draining", "the gateway is shutting down; connect again")
                    return
        finally:
            for wait in waits:
                wait.cancel()

    def _packet(self, packet: RtpPacket) -> None:
        now = self._last_packet = time.monotonic()
        if self._session is None or self._ending.is_set():
            return
        if packet.ssrc != self._ssrc:
            if self._ssrc is not None:
                self._hear(self._receiver.restart(now))
            self._ssrc = packet.ssrc
        self._hear(self._receiver.push(packet.sequence_number, packet.timestamp, packet.payload, now))

    def _tick(self) -> None:
        self._timer = None
        self._hear(self._receiver.tick(time.monotonic()))

    def _drain(self) -> None:
        """What the receiver holds back is heard too."""
        self._hear(self._receiver.finish())

    def _hear(self, heard: Sequence[Pcm | Gap | Stall]) -> None:
        assert self._session is not None
        try:
            for item in heard:
                if isinstance(item, Stall):
                    self._session.mute()
                elif isinstance(item, Gap):
                    at = self._session.at_sample
                    self._session.gap(item.samples)
                    if item.lost and self._room is not None:
                        self._room.say(captions.lost(self._speaker, at, item.samples))
                else:
                    self._session.hear(item)
        except Refusal:
            return  # the stream is over, and its reader knows why
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if (deadline := self._receiver.deadline) is not None:
            # The loop's clock is the monotonic one.
            self._timer = asyncio.get_running_loop().call_at(deadline, self._tick)

    def _channel(self, channel: RTCDataChannel) -> None:
        """The room's captions go out on it."""
        assert self._rooms is not None
        self._readers.append(asyncio.create_task(self._tell(channel, self._rooms), name="whip.tell"))

    async def _tell(self, channel: RTCDataChannel, rooms: Rooms) -> None:
        try:
            with rooms.reading(self._room_name, you=self._speaker.id) as reader:
                async for _, text in reader:
                    while channel.bufferedAmount > SLOW_BYTES:
                        await asyncio.sleep(0.05)
                    if channel.readyState != "open":
                        return
                    channel.send(text)
        except Refusal as error:
            channel.send(captions.failed(self._speaker, error).text)
