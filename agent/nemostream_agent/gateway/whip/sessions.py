"""The WHIP sessions of a gateway, by their ids."""

from __future__ import annotations

import asyncio
import secrets

from ..ice import Ice
from ..rooms import Rooms
from ..service import Service
from ..settings import StreamOptions
from .offer import Offer
from .publication import Publication


class Sessions:
    """
    Attributes:
        ice: servers and addresses.

    Args:
        setup_seconds: in which a connection must come, or the session ends.
    """

    def __init__(self, service: Service, rooms: Rooms, ice: Ice, setup_seconds: float) -> None:
        self.ice = ice
        self._service, self._rooms, self._setup_seconds = service, rooms, setup_seconds
        self._open: dict[str, Publication] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._open)

    async def open(self, who: str, room: str, name: str, offer: Offer, options: StreamOptions) -> tuple[str, str]:
        """A session's id and the answer to its offer.

        Raises:
            Refusal: no place, or nobody can have what it asks for.
        """
        # A full house answers at once, before anything is made.
        self._service.house.check(who)
        publication = Publication(secrets.token_urlsafe(16), who, room, name, offer, options, self.ice)
        answer = await publication.open(self._service, self._rooms, self._setup_seconds)
        self._open[publication.id] = publication
        task = asyncio.create_task(self._forget(publication), name="whip.forget")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return publication.id, answer

    def get(self, identity: str) -> Publication | None:
        return self._open.get(identity)

    async def _forget(self, publication: Publication) -> None:
        await publication.over.wait()
        del self._open[publication.id]
