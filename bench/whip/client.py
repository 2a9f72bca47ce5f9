"""WhipClient: a publisher by RFC 9725 over aiortc; none of our code.

async with WhipClient(http, "kitchen", talk, name="Anna") as client:
    await client.said()                # all of `talk` was sent, packet by packet, by the clock
    await client.delete()              # DELETE, and all messages until the gateway has hung up
    client.inbox.text()

`http`: an httpx.AsyncClient with the gateway's address as its base_url. Media goes over 127.0.0.1 and nowhere else.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Callable
from fractions import Fraction
from types import TracebackType

import aioice.ice
import av
import httpx2 as httpx
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from bench.whip.inbox import WAIT_SECONDS, Inbox
from bench.whip.line import CANDIDATE, Line
from bench.whip.talk import OPUS_RATE, PACKET_SAMPLES, PACKET_SECONDS, Talk

LABEL = "captions"
SDP, FRAGMENT = {"Content-Type": "application/sdp"}, {"Content-Type": "application/trickle-ice-sdpfrag"}

aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]


class Refused(Exception):
    """The gateway did not answer with what was asked for."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__(f"{response.status_code}: {response.text[:200]}")
        self.response = response


class Speaker(MediaStreamTrack):
    """Packet n is sent when its last sample would have been spoken: at `began` + (n + 1) * 20 ms.

    Attributes:
        began, began_at: time.monotonic() and Unix time of the first sample; 0 until it is asked for.
        lags: seconds by which each packet was late.
        done: set when the talk was sent; `on_done` is called then.
    """

    kind = "audio"

    def __init__(self, talk: Talk, on_done: Callable[[], None]) -> None:
        super().__init__()
        self.began = self.began_at = 0.0
        self.lags = array("f")
        self.done = asyncio.Event()
        self._talk, self._on_done = talk, on_done

    async def recv(self) -> av.Packet:
        if not self.began:
            self.began, self.began_at = time.monotonic(), time.time()
        number, packets = len(self.lags), self._talk.packets
        due = self.began + (number + 1) * PACKET_SECONDS
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        self.lags.append(time.monotonic() - due)
        packet = av.Packet(packets[min(number, len(packets) - 1)])
        packet.pts, packet.time_base = number * PACKET_SAMPLES, Fraction(1, OPUS_RATE)
        if number == len(packets):  # the last one was handed over before, and is on its way
            self.done.set()
            self._on_done()
        return packet


class WhipClient:
    """One session.

    Args:
        line: what its media passes through.
        trickle: the offer has no candidates; `trickle()` sends them. The gateway's are not used, so that without ours
            the two do not find each other.
        query: parameters of the POST, as name.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        room: str,
        talk: Talk,
        *,
        line: Line | None = None,
        trickle: bool = False,
        **query: str,
    ) -> None:
        self.inbox = Inbox()
        self.location = self.session = ""
        self.created: httpx.Response
        self.speaker = Speaker(talk, self.inbox.notify)
        self._http, self._room, self._query = http, room, query
        self._line, self._trickle = line, trickle
        self._peer = new_peer()
        self._peer.addTransceiver(self.speaker, direction="sendonly")
        self.channel = self._peer.createDataChannel(LABEL)
        self.channel.on("message", self.inbox.add)
        self.channel.on("open", self.inbox.notify)
        self.channel.on("close", self.inbox.end)
        self._peer.on("connectionstatechange", self._state_changed)

    def _state_changed(self) -> None:
        if self._peer.connectionState in ("closed", "failed"):
            self.inbox.end()
        self.inbox.notify()

    @property
    def state(self) -> str:
        """Of the connection: new, connecting, connected, closed, failed."""
        return self._peer.connectionState

    async def open(self) -> None:
        """POST, and take the answer; the connection comes about by itself.

        Raises:
            Refused: there is none.
        """
        await self._peer.setLocalDescription(await self._peer.createOffer())
        offer = self._peer.localDescription.sdp
        self._candidates = CANDIDATE.findall(offer)
        if self._line is not None or self._trickle:
            offer = Line().offer(offer)
        self.created = await self._http.post(
            f"/whip/{self._room}", params=self._query, content=offer, headers=SDP, timeout=WAIT_SECONDS
        )
        if self.created.status_code != 201:
            raise Refused(self.created)
        self.location = self.created.headers["location"]
        self.session = self.location.rpartition("/")[2]
        answer = self.created.text
        if self._line is not None:
            answer = await self._line.answer(answer)
        if self._trickle:
            answer = Line().offer(answer)
        await self._peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    async def trickle(self) -> httpx.Response:
        """PATCH with the candidates (RFC 9725, section 4.3; RFC 8840, section 9)."""
        lines = self._peer.localDescription.sdp.splitlines()
        ufrag, password = (next(x for x in lines if x.startswith(f"a=ice-{name}:")) for name in ("ufrag", "pwd"))
        media = next(x for x in lines if x.startswith("m=audio"))
        mid = next(x for x in lines if x.startswith("a=mid:"))
        fragment = "\r\n".join([ufrag, password, media, mid, *(c.strip() for c in self._candidates[:1])])
        fragment += "\r\na=end-of-candidates\r\n"
        return await self._http.patch(self.location, content=fragment, headers=FRAGMENT)

    async def connected(self) -> None:
        """The data channel is open, too."""
        await self.inbox.until(lambda: self.channel.readyState == "open")

    async def said(self) -> None:
        """All of the talk was sent. After that silence is, until the end."""
        await self.speaker.done.wait()

    async def delete(self) -> httpx.Response:
        """DELETE, and wait until the gateway has hung up; messages until then are in the inbox."""
        response = await self._http.delete(self.location, timeout=WAIT_SECONDS)
        if response.status_code == 200:
            await self.inbox.until(lambda: self.inbox.over)
        return response

    async def close(self) -> None:
        """Hang up without a DELETE."""
        await self._peer.close()
        await asyncio.sleep(0)  # where the other side has hung up, aiortc has a task of its own that ends with this
        if self._line is not None:
            self._line.close()

    def vanish(self) -> None:
        """From here on no packet is sent and none is heard, as if the machine had lost its power."""
        for transport in self._transports():
            transport.abort()

    def _transports(self) -> list[asyncio.DatagramTransport]:
        ice = [transceiver.sender.transport.transport for transceiver in self._peer.getTransceivers()]
        return [protocol.transport for one in ice for protocol in one._connection._protocols]

    async def __aenter__(self) -> WhipClient:
        try:
            await self.open()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def new_peer() -> RTCPeerConnection:
    return RTCPeerConnection(RTCConfiguration(iceServers=[]))


async def new_offer(*kinds: str, channel: bool = True) -> str:
    """The SDP offer of a client that is gone by now; of one audio track if nothing else is said."""
    peer = new_peer()
    for kind in kinds or ("audio",):
        peer.addTransceiver(kind, direction="sendonly")
    if channel:
        peer.createDataChannel(LABEL)
    await peer.setLocalDescription(await peer.createOffer())
    sdp: str = peer.localDescription.sdp
    await peer.close()
    return sdp
