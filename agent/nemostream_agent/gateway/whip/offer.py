"""SDP: what a browser or OBS offers, and our answer: its Opus track comes in, captions may go out on a data channel.

offer = read_offer(text)                        # raises Refusal
answer = write_answer(offer, ice, candidates, fingerprints)
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from aiortc import RTCIceCandidate, RTCIceParameters, RTCRtpCodecParameters, RTCSctpCapabilities, sdp
from aiortc.rtcdtlstransport import RTCDtlsFingerprint, RTCDtlsParameters

from ..errors import Refusal, bad_data

SCTP_PORT = 5000
OPUS, CLOCK = "audio/opus", 48_000
FMTP = {"minptime": 10, "useinbandfec": 0, "usedtx": 0}
"""No DTX: its pauses would say later that a word is over. No FEC: nothing here could decode it."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A description that can be answered.

    Attributes:
        media: its sections.
        audio: index of that with Opus.
        channel: index of that with a data channel, if any.
        codec: Opus, with its payload type.
        candidates: those in it.
    """

    media: tuple[sdp.MediaDescription, ...]
    audio: int
    channel: int | None
    codec: RTCRtpCodecParameters
    ice: RTCIceParameters
    dtls: RTCDtlsParameters
    candidates: tuple[RTCIceCandidate, ...]

    @property
    def sctp(self) -> tuple[RTCSctpCapabilities | None, int]:
        """What the peer takes in a message, and its port."""
        assert self.channel is not None
        media = self.media[self.channel]
        return media.sctpCapabilities, media.sctp_port or SCTP_PORT


def read_offer(text: str) -> Offer:
    """
    Raises:
        Refusal: no offer, or none that could be answered; the sentence says what is missing.
    """
    try:
        sections = tuple(sdp.SessionDescription.parse(text).media)
    except Exception:  # of any kind: the parser takes the offer to be well-formed
        raise bad_data("the body is not an SDP offer that can be understood") from None
    audio, codec = _opus(sections)
    media = sections[audio]
    ice, dtls = media.ice, media.dtls
    if media.direction in ("recvonly", "inactive"):
        raise bad_data(f"the offer's audio track is {media.direction}; it must be sendonly or sendrecv")
    if codec.clockRate != CLOCK:
        raise bad_data(f"Opus has a clock of {CLOCK} Hz, not {codec.clockRate}")
    if ice is None or not ice.usernameFragment or not ice.password:
        raise bad_data("the offer has no ice-ufrag or no ice-pwd")
    if dtls is None or not dtls.fingerprints:
        raise bad_data("the offer has no DTLS fingerprint or no setup attribute")
    if not media.rtcp_mux:
        raise bad_data("the offer has no rtcp-mux; RTP and RTCP must share a port")
    # Everything goes over one pair of addresses here (BUNDLE, RFC 9143): sections of another transport are rejected.
    ours = [k for k, other in enumerate(sections) if other.port and other.ice == ice]
    channel = next((k for k in ours if sections[k].kind == "application"), None)
    candidates = tuple(c for k in ours for c in sections[k].ice_candidates)
    return Offer(sections, audio, channel, codec, ice, dtls, candidates)


def _opus(sections: Sequence[sdp.MediaDescription]) -> tuple[int, RTCRtpCodecParameters]:
    for k, media in enumerate(sections):
        for codec in media.rtp.codecs:
            if media.kind == "audio" and media.port and codec.mimeType.lower() == OPUS:
                return k, codec
    raise bad_data("the offer has no audio track in Opus")


def write_answer(
    offer: Offer,
    ice: RTCIceParameters,
    candidates: Sequence[RTCIceCandidate],
    fingerprints: Sequence[RTCDtlsFingerprint],
) -> str:
    """The Opus track is received, the data channel is accepted, everything else is rejected. We are the DTLS client."""
    answer = sdp.SessionDescription()
    answer.origin = f"- {secrets.randbits(62)} 2 IN IP4 0.0.0.0"
    accepted = [k for k in (offer.audio, offer.channel) if k is not None]
    mids = [offer.media[k].rtp.muxId for k in sorted(accepted)]
    if all(mids):
        answer.group.append(sdp.GroupDescription("BUNDLE", list(mids)))
    for k, asked in enumerate(offer.media):
        section = sdp.MediaDescription(asked.kind, 9 if k in accepted else 0, asked.profile, asked.fmt)
        section.host = "0.0.0.0"
        section.rtp.muxId = asked.rtp.muxId
        section.ice = RTCIceParameters()
        answer.media.append(section)
        if k not in accepted:
            section.direction = "inactive"
            continue
        section.ice = ice
        section.ice_candidates = list(candidates)
        section.ice_candidates_complete = True
        section.dtls = RTCDtlsParameters(list(fingerprints), role="client")
        if k == offer.audio:
            codec = offer.codec
            section.fmt = [codec.payloadType]
            section.direction = "recvonly"
            section.rtcp_port, section.rtcp_host, section.rtcp_mux = 9, "0.0.0.0", True
            section.rtp.codecs = [
                RTCRtpCodecParameters(
                    codec.mimeType, codec.clockRate, codec.channels, codec.payloadType, parameters=dict(FMTP)
                )
            ]
        else:
            section.sctp_port = SCTP_PORT
            section.sctpCapabilities = RTCSctpCapabilities(maxMessageSize=65536)
    return str(answer)


def read_fragment(text: str, username: str) -> list[RTCIceCandidate]:
    """The candidates in the body of a PATCH (application/trickle-ice-sdpfrag, RFC 8840); none if it says that there are
    no more.

    Args:
        username: the offer's ice-ufrag.

    Raises:
        Refusal: it is none; or it asks for an ICE restart, which is not to be had (RFC 9725, 4.3.3: 422).
    """
    candidates = []
    complete = False
    for line in text.splitlines():
        name, _, value = line.strip().removeprefix("a=").partition(":")
        if name == "candidate":
            try:
                candidates.append(sdp.candidate_from_sdp(value))
            except (ValueError, IndexError, AssertionError):
                raise bad_data("a candidate cannot be understood") from None
        elif name == "end-of-candidates":
            complete = True
        elif name == "ice-ufrag" and value != username:
            raise Refusal(422, 0, "no_restart", "ICE restarts are not offered here; open another session")
    if not candidates and not complete:
        raise bad_data("the body holds no ICE candidate")
    return candidates
