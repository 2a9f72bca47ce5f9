"""Settings by the names of the WebSocket servers that the gateway can take the place of (ASR_ATT_CTX and its kin)."""

from __future__ import annotations

import logging

from nemostream.errors import NemostreamError
from nemostream.model import require_device

logger = logging.getLogger("nemostream.gateway")

FRAME_MS = 80
"""Of an 8x-subsampling encoder over mel frames of 10 ms."""
HALVES = {16: 6, 33: 13}
"""Lookaheads that those servers count in frames of 30 ms, 480 and 1040 ms, in frames of 80 ms."""


class SettingsError(NemostreamError):
    """A setting means nothing here."""


def chunk_ms_of(att_ctx: str) -> int:
    """The chunk of a model's attention contexts "left,right": "70,1" is 160 ms.

    Raises:
        SettingsError: it is no such pair.
    """
    parts = att_ctx.strip().strip("[]").split(",")
    if len(parts) != 2 or not all(part.strip().isdigit() for part in parts):
        raise SettingsError(f"ASR_ATT_CTX is left,right, as 70,13; not {att_ctx!r}")
    right = int(parts[1])
    return (HALVES.get(right, right) + 1) * FRAME_MS


def device_of(name: str | None) -> str | None:
    """The engine's word for a device; None: none is named.

    Raises:
        SettingsError: it is none of these.
        DeviceError: it is a GPU, and there is none here, or no torch.
    """
    known = {"": None, "auto": None, "cpu": "cpu", "cuda": "cuda", "cuda:0": "cuda"}
    if (wanted := (name or "").strip().lower()) not in known:
        raise SettingsError(f"--device (ASR_DEVICE) is cpu or cuda, not {name}")
    device = known[wanted]
    if device == "cuda":
        require_device(device)
    return device


def unneeded(step_ms: str | None) -> None:
    if step_ms:
        logger.warning("ASR_STEP_MS is not needed: steps run when chunks are complete")
