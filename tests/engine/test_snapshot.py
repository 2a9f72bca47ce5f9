"""A snapshot's bytes say which classes they were made of, and those of other classes are refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any, get_args, get_type_hints

import pytest

from nemostream import snapshot
from nemostream.errors import SnapshotError

FORMAT, LAYOUT = 5, "1f9a9b89cb282064"
"""Both change together: when this test fails, raise snapshot.FORMAT and write the new pair here."""


def layout(kind: Any, found: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """The fields of `kind` and of all classes it is made of, each with its type as it is written."""
    for argument in get_args(kind):
        layout(argument, found)
    if (dataclasses.is_dataclass(kind) or hasattr(kind, "_fields")) and kind.__name__ not in found:
        found[kind.__name__] = {
            name: str(getattr(written, "__forward_arg__", written)) for name, written in kind.__annotations__.items()
        }
        for hint in get_type_hints(kind).values():
            layout(hint, found)
    return found


def test_the_format_grows_with_every_change_of_the_classes() -> None:
    found = layout(snapshot.Snapshot, {})
    assert {"Snapshot", "StreamState", "FeedState", "Part", "EarState", "Token", "RowState"} <= found.keys()
    digest = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]
    assert (snapshot.FORMAT, digest) == (FORMAT, LAYOUT)


def test_another_format_is_refused() -> None:
    with pytest.raises(
        SnapshotError, match=f"format {FORMAT - 1}, this version reads {FORMAT}; open it without resume"
    ):
        snapshot.decode((FORMAT - 1).to_bytes(2, "little") + b"\x00")
