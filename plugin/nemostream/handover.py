"""What remains of a stream whose owner closed it and will go on in a new one: its clock and what it has heard, not what
it was about to say.

snapshot.encode(handed_over(seat.snapshot(), model.frame_samples))
"""

from __future__ import annotations

import dataclasses

from nemostream.feed import FeedState
from nemostream.inbox import Request
from nemostream.reconcile import ReconcilerState
from nemostream.snapshot import Snapshot
from nemostream.stream import StreamState


def handed_over(saved: Snapshot, frame_samples: int) -> Snapshot:
    """The snapshot without pending text and without unanswered requests. The clock, encoder and predictor stay, audio
    that waits for the rest of its chunk too; what follows is a new stream's: numbers and counts begin anew."""
    pending = saved.stream.scribe.tokens
    reconciler = saved.stream.reconciler
    if pending:
        # The rest of a word whose beginning is dropped is dropped too.
        heard = -(-saved.feed.heard // frame_samples)
        reconciler = ReconcilerState([], heard, pending[-1].frame, "again")
    stream: StreamState = dataclasses.replace(
        saved.stream,
        scribe=dataclasses.replace(saved.stream.scribe, segment=0, shown="", stable="", tokens=[]),
        reconciler=reconciler,
        sequence=0,
        audio=0,
        unreported=0,
    )
    feed: FeedState = dataclasses.replace(
        saved.feed,
        unjudged=[part for part in saved.feed.unjudged if not _is_question(part.request)],
        inbox=[part for part in saved.feed.inbox if not _is_question(part.request)],
        open_request=None if _is_question(saved.feed.open_request) else saved.feed.open_request,
    )
    return dataclasses.replace(saved, stream=stream, feed=feed)


def _is_question(request: Request | None) -> bool:
    """Somebody waits for the answer. A gap is no question but time that passed: it stays."""
    return request is not None and not request.gap
