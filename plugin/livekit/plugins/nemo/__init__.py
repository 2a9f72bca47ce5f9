"""Streaming speech-to-text for LiveKit Agents with NVIDIA NeMo cache-aware models on your own hardware.

from livekit.plugins import nemo

session = AgentSession(stt=nemo.STT(), ...)
"""

from livekit.agents import Plugin

from nemostream.protocol import Endpointing

from .files import download_files
from .load import load
from .log import logger
from .options import STTOptions
from .stream import SpeechStream
from .stt import STT
from .version import __version__

__all__ = ["STT", "Endpointing", "STTOptions", "SpeechStream", "__version__", "load"]


class NemoPlugin(Plugin):
    def __init__(self) -> None:
        super().__init__(__name__, __version__, __package__, logger)

    def download_files(self) -> None:
        """Run by `python -m livekit.agents download-files`."""
        download_files()


Plugin.register_plugin(NemoPlugin())

_module = dir()
__pdoc__ = {name: False for name in _module if name not in __all__}
