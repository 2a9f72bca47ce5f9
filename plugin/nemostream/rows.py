"""Who owns which row. Rows stay dense, 0..len-1, so that a batch is a view of the first rows of an array."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Owner = TypeVar("Owner", bound=Hashable)

_generations = itertools.count(1)


class Rows(Generic[Owner]):
    """The rows of one group of streams.

        rows = Rows(capacity=64, move=encoder.move)
        row, generation = rows.take("a")     # None when the house is full
        rows.leave("a")                      # the last row moves into the hole

    `move(source, target)` copies the state that a row stands for. A generation number is never given twice, so a
    result that carries one cannot reach a later owner of the same row.
    """

    def __init__(self, capacity: int, move: Callable[[int, int], None]) -> None:
        self.capacity = capacity
        self._move = move
        self._owners: list[Owner] = []
        self._row: dict[Owner, int] = {}

    def __len__(self) -> int:
        return len(self._owners)

    def take(self, owner: Owner) -> tuple[int, int] | None:
        """A row for a new owner and the generation of that lease, or None if every row is taken."""
        assert owner not in self._row, "an owner has one row"
        if len(self._owners) >= self.capacity:
            return None
        row = len(self._owners)
        self._owners.append(owner)
        self._row[owner] = row
        return row, next(_generations)

    def leave(self, owner: Owner) -> None:
        """Free the owner's row; the last owner moves into it."""
        row = self._row.pop(owner)
        last = self._owners.pop()
        if last != owner:
            self._move(len(self._owners), row)
            self._owners[row] = last
            self._row[last] = row

    def row(self, owner: Owner) -> int:
        return self._row[owner]

    def owner(self, row: int) -> Owner:
        return self._owners[row]

    def owners(self) -> list[Owner]:
        """All owners, by row."""
        return list(self._owners)
