"""Rows: dense, one owner each, generations never given twice, and state that follows its owner."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nemostream.rows import Rows


class RowsMachine(RuleBasedStateMachine):
    """Owners come and go in any order; an array of marks stands for the state of the rows."""

    CAPACITY = 5

    def __init__(self) -> None:
        super().__init__()
        self.marks: list[str | None] = [None] * self.CAPACITY
        self.rows: Rows[str] = Rows(self.CAPACITY, self.move)
        self.present: dict[str, int] = {}
        self.generations: set[int] = set()
        self.names = iter(f"owner{i}" for i in range(10_000))

    def move(self, source: int, target: int) -> None:
        self.marks[target] = self.marks[source]

    @rule()
    def take(self) -> None:
        name = next(self.names)
        taken = self.rows.take(name)
        if len(self.present) == self.CAPACITY:
            assert taken is None
            return
        assert taken is not None
        row, generation = taken
        assert generation not in self.generations
        self.generations.add(generation)
        self.marks[row] = name
        self.present[name] = generation

    @precondition(lambda self: self.present)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.present)))
        self.rows.leave(name)
        del self.present[name]

    @invariant()
    def rows_are_dense_and_state_follows_its_owner(self) -> None:
        assert len(self.rows) == len(self.present)
        assert sorted(self.rows.owners()) == sorted(self.present)
        for row, owner in enumerate(self.rows.owners()):
            assert self.rows.row(owner) == row
            assert self.marks[row] == owner


TestRows = RowsMachine.TestCase
