"""Speech in a real room, through Opus and WebRTC, becomes captions that another participant reads."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import wave
from pathlib import Path

import jiwer
import numpy as np

from livekit.plugins import nemo
from nemostream.core import Core
from nemostream.engine import Engine
from nemostream.model import Model
from nemostream.models import catalog
from nemostream.models.bundle import Bundle
from nemostream.protocol import Close, Endpointing, Final, Open, Push
from nemostream_agent.livekit_server import LiveKitServer
from nemostream_agent.participant import RATE, Caption, Pcm
from tests.adapter.helpers import clip, eventually, silence, toy
from tests.rooms.captioned import CaptionedRoom, RecordingSTT, alike, finals_of, text_of

CHUNK_MS = 160


def at_48_khz(pcm: Pcm) -> Pcm:
    return np.interp(np.arange(len(pcm) * 3) / 3, np.arange(len(pcm)), pcm).astype(np.int16)


async def test_speech_at_48_khz_becomes_interim_and_final_captions(
    server: LiveKitServer, room_name: str, engine: Engine
) -> None:
    speech = clip("monday", RATE)
    async with CaptionedRoom(server, room_name, nemo.STT(chunk_ms=CHUNK_MS, engine=engine)) as room:
        speaker = await room.speaker("A")
        started = asyncio.get_running_loop().time()
        await speaker.say(speech.pcm)
        finals = await room.reader.reads("A", speech.text)
        seconds = asyncio.get_running_loop().time() - started
        interims = [caption for caption in room.reader.captions if not caption.final]
        assert interims and len(interims) <= 5 * seconds + 1
        assert {caption.speaker for caption in interims} == {"A"}
        assert {caption.segment for caption in interims} <= {final.segment for final in finals}
        final = finals[-1]
        track = speaker.microphone.publication.sid
        assert {caption.attributes["lk.transcribed_track_id"] for caption in [*interims, final]} == {track}
        assert {caption.attributes["nemostream.language"] for caption in interims} == {"en"}
        words = json.loads(final.attributes["nemostream.words"])
        assert [word["text"] for word in words] == final.text.split()
        starts = [word["start"] for word in words]
        assert starts == sorted(starts) and 0 < starts[0] and words[-1]["end"] < seconds
        texts = [caption.text for caption in interims]
        assert all(a != b for a, b in zip(texts, texts[1:], strict=False)), "an interim is sent when it changed"


async def test_the_pcm_that_was_heard_gives_the_same_text_from_a_file(
    server: LiveKitServer, room_name: str, engine: Engine, tmp_path: Path
) -> None:
    stt = RecordingSTT(chunk_ms=CHUNK_MS, engine=engine)
    async with CaptionedRoom(server, room_name, stt) as room:
        speaker = await room.speaker("A")
        await speaker.say(clip("music", RATE).pcm)
        await speaker.say(silence(1.0, RATE))
        [final] = await room.reader.finals("A")
        await speaker.leave()
        await eventually(lambda: not stt._streams or all(stream.ended for stream in stt._streams))
        [recording] = stt.recordings
        path = tmp_path / "heard.wav"
        write_wav(np.concatenate(recording), path)
        command = [sys.executable, "-m", "nemostream", "transcribe", str(path), "--chunk-ms", str(CHUNK_MS)]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
        assert " ".join(done.stdout.split()) == final.text


async def test_two_speak_at_once_and_each_has_captions_of_their_own(
    server: LiveKitServer, room_name: str, engine: Engine
) -> None:
    first, second = clip("monday", RATE), clip("refund", RATE)
    async with CaptionedRoom(server, room_name, nemo.STT(chunk_ms=CHUNK_MS, engine=engine)) as room:
        a, b = await room.speaker("A"), await room.speaker("B")
        await asyncio.gather(a.say(first.pcm), b.say(second.pcm))
        of_a = await room.reader.reads("A", first.text)
        of_b = await room.reader.reads("B", second.text)
        tracks = [{caption.attributes["lk.transcribed_track_id"] for caption in each} for each in (of_a, of_b)]
        assert tracks == [{a.microphone.publication.sid}, {b.microphone.publication.sid}]
        assert not {caption.segment for caption in of_a} & {caption.segment for caption in of_b}


async def test_one_who_leaves_in_the_middle_of_a_word_gets_a_final_and_frees_the_row(
    server: LiveKitServer, room_name: str, engine: Engine
) -> None:
    speech, other = clip("monday", RATE), clip("tonight", RATE)
    async with CaptionedRoom(server, room_name, nemo.STT(chunk_ms=CHUNK_MS, engine=engine)) as room:
        a, b = await room.speaker("A"), await room.speaker("B")
        staying = asyncio.create_task(b.say(other.pcm))
        await a.say(speech.pcm[: int(1.5 * RATE)])
        await a.leave()
        final = (await room.reader.finals("A"))[0]
        assert set(final.text.split()) & set(speech.text.split()) and "monday" not in final.text
        await room.reader.reads("B", other.text)
        await staying
        await eventually(lambda: engine.open_streams == 1)


async def test_muting_finalises_and_after_unmuting_the_captions_go_on(
    server: LiveKitServer, room_name: str, engine: Engine, toy_bundle: Bundle
) -> None:
    first, second = toy("hello", "world"), toy("please", "call", "me")
    stt = nemo.STT(model=str(toy_bundle.path), chunk_ms=CHUNK_MS, engine=engine, endpointing=Endpointing(blank_ms=None))
    async with CaptionedRoom(server, room_name, stt) as room:
        speaker = await room.speaker("A")
        await speaker.say(at_48_khz(first.pcm))
        speaker.microphone.mute()
        [final] = await room.reader.finals("A")
        assert final.text == first.text
        speaker.microphone.unmute()
        await speaker.say(at_48_khz(second.pcm))
        speaker.microphone.mute()
        finals = await room.reader.finals("A", 2)
        assert [caption.text for caption in finals] == [first.text, second.text]


async def test_a_track_that_is_unpublished_and_published_again_is_captioned_again(
    server: LiveKitServer, room_name: str, engine: Engine
) -> None:
    first, second = clip("tonight", RATE), clip("music", RATE)
    async with CaptionedRoom(server, room_name, nemo.STT(chunk_ms=CHUNK_MS, engine=engine)) as room:
        speaker = await room.speaker("A")
        await speaker.say(first.pcm)
        before = len(await room.reader.reads("A", first.text))
        old = speaker.microphone.publication.sid
        await speaker.publish_again()
        await room.hears(speaker)
        await speaker.say(second.pcm)

        def heard_again(captions: list[Caption]) -> bool:
            return alike(text_of(finals_of(captions, "A")[before:]), second.text)

        captions = await room.reader.until(heard_again)
        tracks = [caption.attributes["lk.transcribed_track_id"] for caption in finals_of(captions, "A")]
        assert set(tracks[:before]) == {old} and set(tracks[before:]) == {speaker.microphone.publication.sid}
        await eventually(lambda: engine.open_streams == 1)


async def test_twelve_speak_at_once(server: LiveKitServer, room_name: str, engine: Engine) -> None:
    """Each gets the text of what was heard of them. Two cores encode, serve and hear all twelve, so WebRTC may lose
    some of what they said; and where a stall closed a segment in the middle of a word, that word is in two, or ends
    there."""
    names = ["monday", "tonight", "music", "refund"] * 3
    stt = RecordingSTT(engine=engine)
    async with CaptionedRoom(server, room_name, stt) as room:
        speakers = [await room.speaker(f"{i:02d}") for i in range(12)]
        streams = {s.identity: room.captions._tracks[s.microphone.publication.sid]._stream for s in speakers}
        await asyncio.gather(*(s.say(clip(name, RATE).pcm) for s, name in zip(speakers, names, strict=True)))
        await room.reader.until(lambda captions: all(finals_of(captions, who) for who in streams))
        more = True
        while more:
            finals = {who: finals_of(room.reader.captions, who) for who in streams}
            seen = len(room.reader.captions)
            # Of the silence behind, which goes on, four seconds: whatever was lost would be in them.
            heard = {
                who: np.concatenate(stt.recording_of[stream])[: int((last_word(finals[who]) + 4) * 16_000)]
                for who, stream in streams.items()
            }
            texts = await asyncio.to_thread(offline, heard)
            whole = all(texts[who] and errors(finals[who], texts[who]) == 0 for who in streams)
            # What is final is told by audio that has come: with the last caption, all of it has.
            more = not whole and await room.reader.more_than(seen)
        stalls = {who: stt.stalls_of[stream] for who, stream in streams.items()}
        differ = {
            who: (texts[who], [caption.text for caption in finals[who]], stalls[who])
            for who in streams
            if not texts[who] or errors(finals[who], texts[who]) > 2 * max(stalls[who], len(finals[who]) - 1)
        }
        assert not differ, "heard, its captions, and stalls"
        delays = [int(caption.attributes["nemostream.delay_ms"]) for caption in room.reader.captions]
        assert min(delays) >= 0
    await eventually(lambda: engine.open_streams == 0)


def last_word(finals: list[Caption]) -> float:
    """Where it ends, in seconds of its track."""
    return max(float(word["end"]) for caption in finals for word in json.loads(caption.attributes["nemostream.words"]))


def errors(finals: list[Caption], text: str) -> int:
    """By how many words the finals differ from `text`."""
    words = jiwer.process_words(text, text_of(finals))
    return words.substitutions + words.deletions + words.insertions


def offline(heard: dict[str, Pcm]) -> dict[str, str]:
    core = Core(peek=False)
    core.add_model(None, Model.load(catalog.resolve(None), None, None))
    for number, pcm in enumerate(heard.values()):
        for message in (Open(number, priority="batch"), Push(number, pcm, 0), Close(number)):
            core.handle(None, message)
    while core.step():
        pass
    finals = [event for event in core.take_events()[None] if isinstance(event, Final) and event.text]
    return {who: " ".join(f.text for f in finals if f.stream == number) for number, who in enumerate(heard)}


def write_wav(pcm: Pcm, path: Path) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(pcm.tobytes())
