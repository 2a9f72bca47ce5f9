"""The encoder in TensorRT: the graph of models/step.py as an engine, on the rows that torch keeps on the GPU.

    backend = TensorRtBackend.load(load_bundle("bundles/toy"), "bf16", "cuda", 256, folder, print)
    encode = backend.encoder(state, most=256)

Engine and torch share tensors by their addresses, and one captured graph holds the work of both. There is a plan for
each chunk size (plans.py); it is taken to the GPU when the first stream of that size opens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nemostream.device.graphs import Graphs, aside
from nemostream.encoders.plans import Plans, Wanted
from nemostream.encoders.resident import Encode, ResidentBackend, describe_device
from nemostream.encoders.tensors import RowTensors, enough_memory
from nemostream.encoders.trt import Api, Context, Engine, at_once, find, ranges
from nemostream.errors import DeviceError
from nemostream.models import catalog
from nemostream.models.step import input_names, output_names

if TYPE_CHECKING:
    from nemostream.models.bundle import Bundle
    from nemostream.models.info import ModelInfo

logger = logging.getLogger("nemostream")


class TensorRtBackend(ResidentBackend):
    """A bundle's plans, and what runs them."""

    def __init__(
        self, info: ModelInfo, precision: str, device: str, api: Api, plans: Mapping[int, Callable[[], bytes]]
    ):
        """`plans`: for each T of a chunk what reads its plan."""
        super().__init__(info, precision, device)
        self._api, self._plans = api, plans
        self.name = f"{api.name}, {describe_device(self.device)}"

    @classmethod
    def load(
        cls, bundle: Bundle, precision: str, device: str, most: int, folder: Path, say: Callable[[str], None]
    ) -> TensorRtBackend:
        """With the plans in `folder`; those that are missing are built, and each is seen to run. Raises what make_plans
        does."""
        api = find()
        plans, info = Plans(folder, api), bundle.info
        made = {frames: want(info, frames, precision, most) for frames in info.chunk_frames}
        readers = {frames: partial(plans.get, bundle, wanted, say) for frames, wanted in made.items()}
        backend = cls(info, precision, device, api, readers)
        for frames, wanted in made.items():
            try:
                readers[frames]()
                backend.check(frames)
            except CannotRun as error:
                # Perhaps it is one of another installation: built here and now it must run.
                say(f"{plans.path(bundle, wanted).name} is built anew: {error}")
                plans.discard(bundle, wanted)
                readers[frames]()
                backend.check(frames)
        return backend

    def check(self, frames: int) -> None:
        """Run a step of one row, captured and replayed.

        Raises:
            CannotRun: the plan does not load, or does not run.
        """
        try:
            with torch.inference_mode(), aside(self.device):
                state = self.state(frames, 1, self.info.spare_frames(frames))
                row, prompt = (torch.zeros(1, dtype=torch.int64, device=self.device) for _ in range(2))
                mel = torch.zeros((1, 8 * frames, self.info.mel.n_mels), device=self.device)
                encode = self.encoder(state, 1)
                graphs = Graphs(self.device)
                graphs.prepare("check", lambda: encode(row, mel, prompt, False)[0])
                encoded = graphs.run("check", lambda: encode(row, mel, prompt, False)[0]).cpu()
        except (RuntimeError, DeviceError) as error:
            raise CannotRun(f"a step does not run ({' '.join(str(error).split())[:300]})") from error
        if not torch.isfinite(encoded).all():
            raise CannotRun("what a step gives is not finite")

    def encoder(self, state: RowTensors, most: int) -> Encode:
        engine = self._api.load(self._plans[state.chunk_frames]())
        return Steps(engine, state, self.info, at_once(state.chunk_frames, most))


class CannotRun(DeviceError):
    """A plan that is there is of no use."""


def make_plans(
    bundle: Bundle, precision: str, most: int, folder: Path, say: Callable[[str], None], target: str | None = None
) -> Iterator[Path]:
    """See to it that there is a plan for every chunk size.

    Args:
        most: rows of a step.
        folder: of plans.
        say: is told what is being done, in words.
        target: a GPU that is elsewhere (trt.find).

    Yields:
        Each of them.

    Raises:
        DeviceError: there is no GPU or no TensorRT for it, or a plan cannot be built or kept.
        BundleError: the weights cannot be read.
    """
    plans = Plans(folder, find(target))
    for frames in bundle.info.chunk_frames:
        wanted = want(bundle.info, frames, precision, most)
        plans.get(bundle, wanted, say)
        yield plans.path(bundle, wanted)


def tensorrt_if_here(bundle: Bundle, precision: str, device: str, most: int) -> TensorRtBackend | None:
    """None, and a warning, if it cannot be had."""
    try:
        if device == "cpu":
            raise DeviceError("TensorRT computes on device cuda alone, and this is cpu")
        return TensorRtBackend.load(bundle, precision, device, most, plan_folder(), _say)
    except DeviceError as error:
        logger.warning("%s; torch computes %s", error, bundle.info.name)
        return None


def plan_folder() -> Path:
    """Where this user's plans are."""
    return catalog.cache() / "tensorrt"


def want(info: ModelInfo, frames: int, precision: str, most: int) -> Wanted:
    """What a plan for chunks of so many frames must offer. Rounded up, so that one plan serves similar settings."""
    columns = info.encoder.left_context + info.spare_frames(frames)
    return Wanted(frames, columns, precision, at_once(frames, 1 << (most - 1).bit_length()))


class Steps:
    """Encode (resident.py) on one group's rows."""

    def __init__(self, engine: Engine, state: RowTensors, info: ModelInfo, at_once: int) -> None:
        """Raises EngineFull if there is no memory for what a step computes."""
        self._engine, self._state, self._at_once = engine, state, at_once
        self._width, self._prompted = info.encoder.d_model, bool(info.prompts)
        layers = info.encoder.n_layers
        self._inputs, self._outputs = input_names(layers, self._prompted), output_names(layers)
        with enough_memory("TensorRT's steps"):
            self._workspace = torch.empty(engine.memory, dtype=torch.uint8, device=state.position.device)
        self._contexts: dict[Hashable, Context] = {}

    def __call__(self, rows: Tensor, mel: Tensor, prompts: Tensor, gathered: bool) -> tuple[Tensor, ...]:
        count = len(rows)
        outputs = self._room(mel)
        for start in range(0, count, self._at_once):
            part = slice(start, min(count, start + self._at_once))
            where = rows[part] if gathered else part
            position = self._state.position[where]
            asked = [prompts[part].clone()] if self._prompted else []
            given = [mel[part], self._state.left(position), self._state.age(position), *asked, *self._remembered(where)]
            tensors = dict(zip(self._inputs, given, strict=True))
            tensors |= {name: out[part] for name, out in zip(self._outputs, outputs, strict=True)}
            stream = _stream()
            self._context((count, gathered, start), len(position), stream).run(tensors, stream)
        return tuple(outputs)

    def _room(self, mel: Tensor) -> list[Tensor]:
        """For the frames and all that is new: in a captured graph at addresses of its own."""
        state, count = self._state, len(mel)
        ring, tail = state.rings.shape[2:], state.tails.shape[2:]
        columns = (count, ring[0], state.chunk_frames, ring[2])
        kept = [mel.new_empty((count, *tensor.shape[1:]), dtype=tensor.dtype) for tensor in state.front]
        for _ in range(len(state.tails)):
            kept += [mel.new_empty(columns, dtype=state.rings.dtype) for _ in "kv"]
            kept.append(mel.new_empty((count, *tail), dtype=state.tails.dtype))
        return [mel.new_empty((count, state.chunk_frames, self._width)), *kept]

    def _remembered(self, where: Tensor | slice) -> list[Tensor]:
        state = self._state
        found = [tensor[where] for tensor in state.front]
        for layer, tail in enumerate(state.tails):
            found += [state.rings[2 * layer][where], state.rings[2 * layer + 1][where], tail[where]]
        return found

    def _context(self, key: Hashable, count: int, stream: int) -> Context:
        """Made in the runs before a capture: it must not be made in one."""
        if key not in self._contexts:
            offered = ranges(at_once(self._state.chunk_frames, 1 << 30))
            profile = next(i for i, size in enumerate(offered) if count <= size.most)
            self._contexts[key] = self._engine.context(profile, self._workspace, stream)
        return self._contexts[key]


def _say(what: str) -> None:
    logger.info("TensorRT: %s", what)


def _stream() -> int:
    return int(torch.cuda.current_stream().cuda_stream) if torch.cuda.is_available() else 0
