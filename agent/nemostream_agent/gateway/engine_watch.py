"""A gateway's look at its engine: it never takes long and starts nothing; and a way back for an engine that is lost.

watch = EngineWatch(engine)
description = await watch.look()      # None: it does not answer
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from nemostream import probe
from nemostream.errors import NemostreamError
from nemostream.remote import RemoteEngine

if TYPE_CHECKING:
    from nemostream.figures import Description
    from nemostream.registry import AnyEngine

logger = logging.getLogger("nemostream.gateway")

ANSWER_SECONDS = 1.0
"""An engine that takes longer to answer is not well."""
LOOK_SECONDS = 5.0
"""Between two looks of `keep`."""


class EngineWatch:
    """One question at a time, whoever asks: an engine that hangs leaves nothing behind that grows."""

    def __init__(self, engine: AnyEngine) -> None:
        self._engine = engine
        self._looking: asyncio.Task[Description | None] | None = None

    async def look(self) -> Description | None:
        """What the engine says of itself; None: it does not answer. Who asks meanwhile gets the same answer."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="gateway.look")
        return await asyncio.shield(self._looking)

    async def _look(self) -> Description | None:
        if isinstance(self._engine, RemoteEngine):
            # Not over the link of the streams, which would start an engine, and waits as long as one hangs.
            return await probe.describe(self._engine.config.place, ANSWER_SECONDS)
        return self._engine.describe()

    async def keep(self, model: str | None) -> None:
        """Until cancelled. Streams bring a lost engine back; but while /health says that there is none no balancer
        sends any, so this does too: `model` is loaded again."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if await self.look() is None:
                logger.warning("the engine does not answer")
                with contextlib.suppress(NemostreamError):  # the next look says so again
                    await asyncio.to_thread(self._engine.load, model)
