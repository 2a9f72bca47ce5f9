"""The gateway: speech-to-text over HTTP and WebSocket, in the protocols that clients speak already.

`python -m nemostream_agent gateway` runs it. It is one more client of the machine's engine, so its streams share
batches with those of the rooms.
"""
