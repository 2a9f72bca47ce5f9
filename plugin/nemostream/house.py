"""The models in memory, and their groups of rows: what is loaded, what may go to make room.

house = House(rows=256)
house.make_room(wanted, limit, in_use)                # before a model is loaded, where memory is limited
house.add("toy", model, size=wanted, costs={2: Line(0.001, 0.0002)})
group = house.group("toy", chunk_ms=160)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass, field
from functools import partial

from nemostream.cost import Line
from nemostream.errors import EngineFull, ModelMemory, UnknownModel, UnsupportedChunk
from nemostream.group import Group
from nemostream.model import Model

RETRY_AFTER = 5.0
MB = 1 << 20


@dataclass(slots=True, eq=False)
class _Held:
    """`size`: bytes, by estimate; `used`: a number that grows with every use of any model."""

    model: Model
    size: int
    costs: Mapping[int, Line]
    used: int = 0


@dataclass(slots=True)
class House:
    """All that streams share. Changed on the engine's thread only, but for `add`.

    Attributes:
        rows: of each group; streams are counted over all of them (seating.py).
        models: by the names that streams use; None is the default. One model may have several names.
        groups: by model and chunk size.
        max_batch: rows of a step at most; None: as time allows.
    """

    rows: int
    models: dict[str | None, Model] = field(default_factory=dict)
    groups: dict[Hashable, Group] = field(default_factory=dict)
    max_batch: int | None = None
    _held: dict[int, _Held] = field(default_factory=dict)
    _uses: int = 0

    def add(self, name: str | None, model: Model, size: int = 0, costs: Mapping[int, Line] | None = None) -> None:
        """Make a model known.

        Args:
            size: bytes that it takes.
            costs: of a step, by frames of a chunk, where they were calibrated.
        """
        # A dict's assignment is atomic: the engine's thread sees the model whole or not at all.
        self._held.setdefault(id(model), _Held(model, size, costs or {}, self._uses))
        self.models[name] = model

    def group(self, name: str | None, chunk_ms: int | None) -> Group:
        """The group of a stream that asks for this.

        Raises:
            UnknownModel, UnsupportedChunk: there is none.
        """
        key, model, chunk_frames = self._find(name, chunk_ms)
        if key not in self.groups:
            self.groups[key] = self._make(key, model, chunk_frames)
        return self.groups[key]

    def missing(self, name: str | None, chunk_ms: int | None) -> Callable[[], Group] | None:
        """What makes the group of streams that ask for this, where that takes seconds: on another thread. None if it is
        there, is made at once, or cannot be. Whoever has made it calls `join`."""
        try:
            key, model, chunk_frames = self._find(name, chunk_ms)
        except (UnknownModel, UnsupportedChunk):
            return None
        if not model.slow_groups or key in self.groups:
            return None
        return partial(self._make, key, model, chunk_frames)

    def join(self, group: Group) -> None:
        """A group that `missing` has made is there, unless its model has gone meanwhile."""
        if id(group.model) in self._held:
            self.groups.setdefault(group.load.key, group)

    def _find(self, name: str | None, chunk_ms: int | None) -> tuple[Hashable, Model, int]:
        """The key of a group, its model and its T."""
        model = self.models.get(name)
        if model is None:
            raise UnknownModel(f"model {name!r} is not loaded")
        chunk_frames = model.chunk_frames(chunk_ms)
        return (model.bundle.hash, id(model), chunk_frames), model, chunk_frames

    def _make(self, key: Hashable, model: Model, chunk_frames: int) -> Group:
        group = model.group(key, model, chunk_frames, self.rows, self.max_batch)
        group.load.cost.calibrated = self._held[id(model)].costs.get(chunk_frames)
        return group

    def touch(self, model: Model) -> None:
        """A stream came to the model or left it."""
        self._uses += 1
        self._held[id(model)].used = self._uses

    def make_room(self, wanted: int, limit: int, in_use: Collection[Model]) -> bool:
        """Evict models until `wanted` bytes fit into `limit`: those that nobody has used for longest first, the default
        one last. Nothing is evicted in vain. True if any was.

        Raises:
            EngineFull: the models in use leave no room now.
            ModelMemory: there is not enough of it even for this model alone.
        """
        if wanted > limit:
            raise ModelMemory(
                f"the model needs about {wanted / MB:.0f} MB, more than the {limit / MB:.0f} MB of model_memory_mb; "
                "raise it, or use a smaller model or int8"
            )
        busy = {id(model) for model in in_use}
        default = self.models.get(None)
        idle = [held for held in self._held.values() if id(held.model) not in busy]
        idle.sort(key=lambda held: (held.model is default, held.used))
        room = limit - sum(held.size for held in self._held.values())
        leaving: list[_Held] = []
        while room < wanted and idle:
            leaving.append(idle.pop(0))
            room += leaving[-1].size
        if room < wanted:
            raise EngineFull(
                f"{len(busy)} models in use leave {max(0, room) / MB:.0f} MB of model_memory_mb, and this one needs "
                f"about {wanted / MB:.0f} MB; raise it, close the streams of a model, or try again later",
                RETRY_AFTER,
            )
        for held in leaving:
            self._evict(held.model)
        return bool(leaving)

    def _evict(self, model: Model) -> None:
        for name in [n for n, m in self.models.items() if m is model]:
            del self.models[name]
        for key in [k for k, g in self.groups.items() if g.model is model]:
            del self.groups[key]
        del self._held[id(model)]
