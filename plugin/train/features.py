"""Log-mel features of a batch in torch, equal to nemostream.mel (and NeMo), and SpecAugment on them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nemostream.models.config import MelConfig


class LogMel(nn.Module):
    """(B, N) samples -> (B, F, n_mels), F = N // 160 + 1, and the number of valid frames, length // 160."""

    filters: Tensor
    window: Tensor

    def __init__(self, config: MelConfig, filters: Tensor, window: Tensor) -> None:
        """filters (1, n_mels, n_fft // 2 + 1) and window (win,) as a .nemo holds them."""
        super().__init__()
        self.config = config
        self.register_buffer("filters", filters[0], persistent=False)
        self.register_buffer("window", window, persistent=False)

    @torch.no_grad()
    def forward(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        c = self.config
        x = torch.cat([samples[:, :1], samples[:, 1:] - c.preemphasis * samples[:, :-1]], 1)
        x = x * (torch.arange(x.shape[1], device=x.device) < lengths[:, None])
        spectrum = torch.stft(
            x, c.n_fft, c.hop, c.win, self.window, center=True, pad_mode="constant", return_complex=True
        )
        power = spectrum.real**2 + spectrum.imag**2
        return torch.log(self.filters @ power + c.guard).transpose(1, 2), lengths // c.hop


def mask_spectrum(
    mel: Tensor, lengths: Tensor, bands: int = 2, widest_band: int = 14, gaps: int = 3, longest_gap: int = 12
) -> Tensor:
    """SpecAugment (https://arxiv.org/abs/1904.08779): `bands` of mels and `gaps` of frames in each row become the row's
    mean. A gap takes at most a tenth of a row. Draws come from torch's generator of the CPU."""
    batch, frames, mels = mel.shape
    hidden = torch.zeros(batch, frames, mels, dtype=torch.bool, device=mel.device)
    tenth = (lengths // 10).clamp(max=longest_gap).cpu()
    for _ in range(bands):
        hidden |= _span(torch.full((batch,), mels), torch.full((batch,), widest_band), mels).to(mel.device)[:, None]
    for _ in range(gaps):
        hidden |= _span(lengths.cpu(), tenth, frames).to(mel.device)[:, :, None]
    valid = (torch.arange(frames, device=mel.device) < lengths[:, None])[:, :, None]
    mean = (mel * valid).sum((1, 2)) / (lengths.clamp(min=1) * mels)
    return torch.where(hidden, mean[:, None, None], mel)


def _span(extent: Tensor, widest: Tensor, size: int) -> Tensor:
    """(B, size) bool: in each row a run of 0..widest - 1 places, somewhere in 0..extent."""
    width = (torch.rand(len(extent)) * widest).long()
    start = (torch.rand(len(extent)) * (extent - width)).long()
    index = torch.arange(size)[None]
    return (index >= start[:, None]) & (index < (start + width)[:, None])
