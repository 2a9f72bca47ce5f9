"""What waits for the engine's thread, in the order it came; any thread may put something in.

mail = Mailbox()
mail.post([(number, push)])                    # False: it is closed
while (items := mail.wait(seconds)) is not None: ...
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from nemostream.protocol import Message, Pushes

Item = tuple[int, Message | Pushes | None] | Callable[[], None]
"""An owner's number and what it sends, None at its end; or something to be done."""


class Mailbox:
    """`lock` is held for each change: who must decide by `closed` and act on it holds it too."""

    def __init__(self) -> None:
        self.lock = threading.Condition()
        self.closed = False
        self._items: deque[Item] = deque()

    def __len__(self) -> int:
        return len(self._items)

    def post(self, items: Sequence[Item]) -> bool:
        """Behind all other; False, and nothing is kept, if it is closed."""
        with self.lock:
            if self.closed:
                return False
            self._items.extend(items)
            self.lock.notify()
            return True

    def put_back(self, items: Sequence[Item]) -> None:
        """In front of all other."""
        with self.lock:
            self._items.extendleft(reversed(items))

    def first(self) -> Item | None:
        """Take one, if there is one."""
        with self.lock:
            return self._items.popleft() if self._items else None

    def wait(self, seconds: float | None) -> deque[Item] | None:
        """Take all, once there is one or the time is up; None: it is closed."""
        with self.lock:
            if not self._items and not self.closed:
                self.lock.wait(seconds)
            return None if self.closed else self._all()

    def close(self) -> None:
        with self.lock:
            self.closed = True
            self.lock.notify()

    def rest(self) -> deque[Item]:
        """Take what is left when it is closed."""
        with self.lock:
            return self._all()

    def _all(self) -> deque[Item]:
        items, self._items = self._items, deque()
        return items
