"""Who is let in: a count of streams, in all and for each client.

house = House(Limits(hard=2))
with house.enter("key:anna"): ...      # raises Refusal at once when it is full
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import Refusal, full
from .settings import Limits


class House:
    """Streams that are open now.

    Attributes:
        open: how many.
        draining: the gateway is going to end: nobody is let in.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.open = 0
        self.draining = False
        self._clients: Counter[str] = Counter()

    @property
    def crowded(self) -> bool:
        """The soft limit is reached."""
        return self.open >= self.limits.soft

    @contextmanager
    def enter(self, client: str) -> Iterator[None]:
        """
        Raises:
            Refusal: there is no place, or the client has as many streams as it may have.
        """
        self.check(client)
        self.open += 1
        self._clients[client] += 1
        try:
            yield
        finally:
            self.open -= 1
            self._clients[client] -= 1
            if not self._clients[client]:
                del self._clients[client]

    def check(self, client: str) -> None:
        """Raises Refusal if `enter` would."""
        limits = self.limits
        if self.draining:
            raise Refusal(503, 1013, "draining", "the gateway is shutting down; connect again", 1.0)
        if self.open >= limits.hard:
            raise full(f"all {limits.hard} streams are taken; try again later")
        if limits.per_client is not None and self._clients[client] >= limits.per_client:
            raise Refusal(429, 1013, "client_limit", f"one client may have {limits.per_client} streams at once", 1.0)
