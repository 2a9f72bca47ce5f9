"""Log-mel features of a batch in torch, equal to nemostream.mel (and NeMo); other vocal tracts, and SpecAugment."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nemostream.models.config import MelConfig

TRACTS = tuple(1 + 0.02 * i for i in range(-8, 9))
"""Factors of the formants' frequencies, for vocal tracts from a sixth longer to a sixth shorter than the speaker's."""
KNEE = 0.8
"""Share of the spectrum up to which a factor holds; above, a straight line leads to the last bin."""


class LogMel(nn.Module):
    """(B, N) samples -> (B, F, n_mels), F = N // 160 + 1, and the number of valid frames, length // 160."""

    filters: Tensor
    window: Tensor
    warped: Tensor

    def __init__(self, config: MelConfig, filters: Tensor, window: Tensor) -> None:
        """filters (1, n_mels, n_fft // 2 + 1) and window (win,) as a .nemo holds them."""
        super().__init__()
        self.config = config
        self.register_buffer("filters", filters[0], persistent=False)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("warped", torch.stack([warp(filters[0], tract) for tract in TRACTS]), persistent=False)

    @torch.no_grad()
    def forward(self, samples: Tensor, lengths: Tensor, tracts: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`tracts` (B,): for each row an index into TRACTS; None leaves all speakers as they are."""
        c = self.config
        x = torch.cat([samples[:, :1], samples[:, 1:] - c.preemphasis * samples[:, :-1]], 1)
        x = x * (torch.arange(x.shape[1], device=x.device) < lengths[:, None])
        spectrum = torch.stft(
            x, c.n_fft, c.hop, c.win, self.window, center=True, pad_mode="constant", return_complex=True
        )
        power = spectrum.real**2 + spectrum.imag**2
        filters = self.filters if tracts is None else self.warped[tracts]
        return torch.log(filters @ power + c.guard).transpose(1, 2), lengths // c.hop


def warp(filters: Tensor, factor: float) -> Tensor:
    """(n_mels, bins) filters that hear a spectrum as if its frequencies were `factor` times as high: perturbation of
    the vocal tract's length (Jaitly and Hinton 2013), which moves formants and leaves the pitch."""
    last = filters.shape[1] - 1
    bins = torch.arange(last + 1, dtype=torch.float64)
    knee = KNEE * last * min(1.0, factor)
    steep = (last - knee / factor) / (last - knee)
    source = torch.where(bins <= knee, bins / factor, last - steep * (last - bins)).clamp(0, last)
    low = source.floor().clamp(max=last - 1).long()
    share = (source - low)[:, None]
    moved = torch.zeros(last + 1, last + 1, dtype=torch.float64)
    moved.scatter_(1, low[:, None], 1 - share).scatter_add_(1, low[:, None] + 1, share)
    return (filters.double() @ moved.to(filters.device)).to(filters.dtype)


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
