"""Log-mel frames on the device: the front end of mel.py as part of the step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nemostream.mel import MelFilters

FRONT_FRAMES = 7
"""Mel frames of a stream's first chunk that lie before it (lanes.FRONT_FRAMES)."""


class LogMel(nn.Module):
    """The formula of MelFilters, in float32 whatever the encoder computes in: its logs are large numbers."""

    def __init__(self, filters: MelFilters) -> None:
        super().__init__()
        self.n_fft, self.hop, self.width = filters.n_fft, filters.hop, len(filters.window)
        self.preemphasis, self.guard = filters.preemphasis, filters.guard
        self.window = nn.Buffer(torch.from_numpy(filters.window.copy()))
        self.columns = nn.Buffer(torch.from_numpy(filters.columns.copy()))

    def forward(self, samples: Tensor, first: Tensor) -> Tensor:
        """Frames of one chunk of each row.

        Args:
            samples: (B, MelFilters.span(8T)) float32 in -1..1.
            first: (B,) bool, rows whose first FRONT_FRAMES frames lie before the stream: those are zero.

        Returns:
            (B, 8T, n_mels).
        """
        emphasised = samples[:, 1:] - self.preemphasis * samples[:, :-1]
        spectrum = torch.view_as_real(
            torch.fft.rfft(emphasised.unfold(1, self.width, self.hop) * self.window, self.n_fft)
        )
        logs = torch.log(spectrum.square().sum(-1) @ self.columns + self.guard)
        before = torch.arange(logs.shape[1], device=logs.device) < FRONT_FRAMES
        return torch.where((first[:, None] & before)[:, :, None], 0.0, logs)
