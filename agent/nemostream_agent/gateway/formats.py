"""What audio files and streams may be: demuxers of libavformat that read what they are given and open nothing else.

Without a list libavformat would also take playlists (HLS, DASH, concat), which name files and addresses to open.
"""

from __future__ import annotations

DEMUXERS: tuple[str, ...] = ("wav", "w64", "aiff", "au", "caf", "flac", "mp3", "aac", "amr", "ogg", "matroska", "mov")
"""libavformat's names: matroska is WebM too, mov is MP4 and M4A too."""
OPTIONS: dict[str, str] = {"format_whitelist": ",".join(DEMUXERS), "protocol_whitelist": "none"}
"""For `av.open(a_file_object, options=...)`. No protocol has the name none."""
