"""What a track costs the process that hears it, at 10 and at 60 of them: routed (track_audio.py) or as the SDK does.

python -m bench.tracks [--rounds 5] [--seconds 8]

60 speakers with encoders of their own would need more than this machine's cores, so the tracks are not real. All that
Python does for one is: the SDK's AudioStream and its FfiQueue, and protobuf events parsed on another thread, 12.5 a
second for each track at evenly spread moments, each with 80 ms of PCM that is copied into a frame and read. What the
native side spends is not in the figures. The CPU is the process's, idle loop and pacing included, which is why a stream
among few seems to cost more.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import threading
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from livekit.rtc._ffi_client import FfiClient
from livekit.rtc._proto import audio_frame_pb2, ffi_pb2

from livekit import rtc
from nemostream_agent.track_audio import FRAME_MS, RATE, TrackAudio

COUNTS = (10, 60)
FIRST_HANDLE = 1 << 40
"""Far from any handle that the native side gives out."""
PCM = np.zeros(RATE * FRAME_MS // 1000, np.int16)


class SimulatedTracks:
    """Opens streams that have no native side, and sends them frames in real time."""

    def __init__(self, count: int) -> None:
        self._handles = range(FIRST_HANDLE, FIRST_HANDLE + count)

    def open(self, routed: bool) -> tuple[list[rtc.AudioStream], TrackAudio]:
        audio, streams = TrackAudio(), []
        for handle in self._handles:
            owned = audio_frame_pb2.OwnedAudioStream()
            owned.handle.id = handle
            with mock.patch.object(rtc.AudioStream, "_create_owned_stream", lambda self, owned=owned: owned):
                track = mock.Mock()
                stream = audio.open(track) if routed else rtc.AudioStream(track, sample_rate=RATE)
            stream._ffi_handle.mark_consumed()
            assert audio.routes(stream) is routed
            streams.append(stream)
        return streams, audio

    def play(self, frames: int) -> None:
        """Every track's frames and its end, as the native side's thread sends them."""
        raw = [self._frame(handle) for handle in self._handles]
        spacing = FRAME_MS / 1000 / len(raw)
        began = time.perf_counter()
        for i in range(frames * len(raw)):
            time.sleep(max(0.0, began + i * spacing - time.perf_counter()))
            self._send(raw[i % len(raw)])
        for handle in self._handles:
            end = ffi_pb2.FfiEvent()
            end.audio_stream_event.stream_handle = handle
            end.audio_stream_event.eos.SetInParent()
            self._send(end.SerializeToString())

    @staticmethod
    def _frame(handle: int) -> bytes:
        event = ffi_pb2.FfiEvent()
        event.audio_stream_event.stream_handle = handle
        frame = event.audio_stream_event.frame_received.frame
        frame.handle.id = 0  # nothing to give back
        info = frame.info
        info.data_ptr = PCM.ctypes.data
        info.num_channels, info.sample_rate, info.samples_per_channel = 1, RATE, len(PCM)
        return event.SerializeToString()

    @staticmethod
    def _send(raw: bytes) -> None:
        # As ffi_event_callback does.
        event = ffi_pb2.FfiEvent()
        event.ParseFromString(raw)
        event.WhichOneof("message")
        FfiClient.instance.queue.put(event)


async def measure(count: int, routed: bool, seconds: float) -> float:
    """CPU of one stream in percent of a core."""
    frames = int(seconds * 1000 / FRAME_MS)
    tracks = SimulatedTracks(count)
    streams, audio = tracks.open(routed)

    async def read(stream: rtc.AudioStream) -> int:
        return len([None async for _ in stream])

    reading = [asyncio.create_task(read(stream)) for stream in streams]
    playing = threading.Thread(target=tracks.play, args=(frames,))
    cpu = time.process_time()
    playing.start()
    heard = await asyncio.gather(*reading)
    cpu = time.process_time() - cpu
    playing.join()
    audio.close()
    # A frame that comes with the end is not read: the SDK's iterator stops before it.
    assert all(frames - 1 <= each <= frames for each in heard), "audio was lost"
    return 100 * cpu / seconds / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0)
    options = parser.parse_args()
    cells = [(count, routed) for routed in (False, True) for count in COUNTS]
    cpu: dict[tuple[int, bool], list[float]] = {cell: [] for cell in cells}
    for round_ in range(options.rounds):
        for cell in cells if round_ % 2 == 0 else cells[::-1]:
            cpu[cell].append(asyncio.run(measure(*cell, options.seconds)))
    rows: list[dict[str, Any]] = []
    print("| streams | events | CPU of one stream, % of a core: min | median | max |\n|---|---|---|---|---|")
    for (count, routed), values in cpu.items():
        row = {
            "streams": count,
            "routed": routed,
            "min": round(min(values), 3),
            "median": round(statistics.median(values), 3),
            "max": round(max(values), 3),
        }
        rows.append(row)
        how = "routed" if routed else "the SDK's"
        print(f"| {count} | {how} | {row['min']:.3f} | {row['median']:.3f} | {row['max']:.3f} |")
    result = {
        "command": "python -m bench.tracks",
        "rounds": options.rounds,
        "seconds": options.seconds,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "livekit": rtc.__version__,
        "cpu_of_one_stream_percent_of_a_core": rows,
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
