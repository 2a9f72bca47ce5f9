# Version of the distribution livekit-plugins-nemo.
__version__ = "0.1.0"
