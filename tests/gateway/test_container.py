"""Live audio in containers: found out, decoded in pieces of any size, and nothing else is opened."""

from __future__ import annotations

import asyncio
import io
import shutil
import threading
from pathlib import Path

import av
import numpy as np
import pytest

from nemostream.errors import AudioError
from nemostream.protocol import Samples
from nemostream_agent.gateway.container import BLOCK, SOUNDLESS_BYTES, ContainerDecoder
from tests.clips import clip, path
from tests.gateway.sounds import CONTAINERS, encoded


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "gateway-container"]


async def decoded(data: bytes, size: int | None = None) -> Samples:
    decode = ContainerDecoder()
    found = [np.zeros(0, np.float32)]
    try:
        for begin in range(0, len(data), size or max(1, len(data))):
            found += [samples async for samples in decode.push(data[begin : begin + (size or len(data))])]
        found += [samples async for samples in decode.finish()]
    finally:
        decode.close()
    return np.concatenate(found)


@pytest.mark.parametrize("kind", CONTAINERS)
async def test_pieces_of_any_size_give_the_same_samples(kind: str) -> None:
    data = encoded(kind, clip("monday"))
    whole = await decoded(data)
    assert np.array_equal(await decoded(data, 100), whole)
    assert abs(len(whole) - len(clip("monday"))) < 2048  # some codecs fill their last frame
    if kind in ("wav", "flac"):
        assert np.array_equal(whole, (clip("monday") * 32767).astype(np.int16).astype(np.float32) / 32768)


async def test_what_came_is_given_before_more_is_asked_for() -> None:
    data = encoded("webm", clip("monday"))
    decode = ContainerDecoder()
    given = sum([len(s) async for s in decode.push(data)])
    decode.close()
    assert given > len(clip("monday")) - 1000


PLAYLIST = b"ffconcat version 1.0\nfile clip.opus\n"
HLS = b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nclip.opus\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    "data",
    [b"x", b"garbage " * 10_000, b"PK\3\4" + bytes(5000), b"RIFF", b"OggS", encoded("wav", clip("monday"))[:60], HLS],
    ids=["a byte", "garbage", "zip", "RIFF alone", "OggS alone", "wav without sound", "hls"],
)
async def test_what_is_no_audio_is_an_audio_error(data: bytes) -> None:
    with pytest.raises(AudioError):
        await decoded(data, 1000)


async def test_a_playlist_opens_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(path("monday"), tmp_path / "clip.opus")
    monkeypatch.chdir(tmp_path)
    with av.open(io.BytesIO(PLAYLIST)) as unguarded:  # it would
        assert unguarded.streams.audio
    with pytest.raises(AudioError):
        await decoded(PLAYLIST)


async def test_nothing_at_all_is_no_error() -> None:
    assert len(await decoded(b"")) == 0


async def test_what_decodes_to_much_more_comes_bit_by_bit() -> None:
    """Ten minutes of silence in one message. Nobody decodes more of it than somebody takes."""
    data = encoded("flac", np.zeros(600 * 16_000, np.float32))
    assert len(data) < 1 << 18
    decode = ContainerDecoder()
    given = 0
    async for samples in decode.push(data):
        assert len(samples) < 2 * BLOCK
        assert decode._answers.empty(), "the thread goes on although nobody has taken what it gave"
        if (given := given + 1) == 3:
            break
    decode.close()


async def test_what_claims_to_be_large_and_has_no_sound_is_refused() -> None:
    size = 2 * SOUNDLESS_BYTES
    picture = b"ID3\4\0\0" + bytes((size >> 7 * k) & 0x7F for k in (3, 2, 1, 0))
    decode = ContainerDecoder()
    taken = 0
    with pytest.raises(AudioError, match="no sound"):
        [s async for s in decode.push(picture)]
        while taken < size:
            [s async for s in decode.push(bytes(1 << 20))]
            taken += 1 << 18
    decode.close()
    assert taken <= SOUNDLESS_BYTES + (1 << 20)


async def test_the_loop_is_free_while_the_thread_decodes() -> None:
    data = encoded("flac", np.zeros(120 * 16_000, np.float32))
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await decoded(data)
    counting.cancel()
    assert turns > 120


@pytest.mark.parametrize("data", [b"", encoded("ogg", clip("monday"))[:9000], b"OggS", encoded("flac", clip("monday"))])
async def test_no_thread_is_left(data: bytes) -> None:
    """Neither of a decoder that waits for more, nor of one that nobody takes samples from."""
    decoders = [ContainerDecoder() for _ in range(10)]
    for decode in decoders:
        async for _ in decode.push(data):
            break
    for decode in decoders:
        decode.close()
    for thread in threads():
        await asyncio.to_thread(thread.join, 30)
    assert not threads()
