"""WHIP: a browser's or OBS's audio over WebRTC, without LiveKit."""
