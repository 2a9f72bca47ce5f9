"""A load sweep against a speech server over WebSocket, ours or another (python -m bench.server --help)."""
