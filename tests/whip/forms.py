"""The documented form and order of caption messages, as assertions (docs/gateway.md)."""

from __future__ import annotations

from typing import Any

Told = dict[str, Any]

EVENTS = ("interim", "final")
FIELDS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "room": {"room": str, "you": (str, type(None)), "speakers": list},
    "joined": {"speaker": str, "name": str},
    "left": {"speaker": str, "name": str},
    "lost": {"speaker": str, "name": str, "start": float, "seconds": float},
    "failed": {"speaker": str, "name": str, "code": str, "message": str},
    "interim": {
        **{"speaker": str, "name": str, "segment": str, "text": str, "start": float, "end": float, "at": float},
        **{"sent": float, "delay_ms": (int, type(None))},
    },
}
FIELDS["final"] = {**FIELDS["interim"], "words": list, "reason": str}
WORD = {"text": str, "start": float, "end": float, "confidence": float}
REASONS = {"endpoint", "flush", "gap", "idle", "limit", "end"}
MOST_A_SECOND = 10


def check_form(message: Told) -> None:
    fields = FIELDS[message["type"]]
    assert message.keys() == {"type", *fields}, message
    for name, kind in fields.items():
        value = message[name]
        assert isinstance(value, kind) or (kind is float and isinstance(value, int)), (name, message)
    if message["type"] in EVENTS:
        assert message["text"] and 0 <= message["start"] < message["end"], message
        assert message["at"] <= message["sent"], message
    if message["type"] == "final":
        _check_words(message)


def _check_words(final: Told) -> None:
    words = final["words"]
    assert " ".join(word["text"] for word in words) == final["text"] and final["reason"] in REASONS
    assert all(word.keys() == WORD.keys() for word in words)
    assert (words[0]["start"], words[-1]["end"]) == (final["start"], final["end"])
    times = [time for word in words for time in (word["start"], word["end"])]
    assert times == sorted(times), f"words overlap in {final}"


def check_order(messages: list[Told]) -> None:
    """The room first; behind a final nothing of its segment; segments of a speaker one after another."""
    assert [message["type"] for message in messages].index("room") == 0
    done: set[str] = set()
    ends: dict[str, float] = {}
    open_segment: dict[str, str] = {}
    for message in messages:
        check_form(message)
        if message["type"] not in EVENTS:
            continue
        speaker, segment = message["speaker"], message["segment"]
        assert segment not in done, f"something came behind the final of {segment}"
        assert open_segment.setdefault(speaker, segment) == segment, "a segment began before the one before was final"
        if message["type"] == "final":
            assert message["start"] >= ends.get(speaker, 0.0), "a word was said twice, or in the wrong place"
            ends[speaker] = message["end"]
            done.add(open_segment.pop(speaker))


def check_pace(messages: list[Told]) -> None:
    """Interims of one speaker: so many within any second, by when they were sent, and a little for clocks."""
    sent: dict[str, list[float]] = {}
    for message in messages:
        if message["type"] == "interim":
            sent.setdefault(message["speaker"], []).append(message["sent"])
    for times in sent.values():
        for early, late in zip(times, times[MOST_A_SECOND:], strict=False):
            assert late - early > 0.9, f"{MOST_A_SECOND + 1} interims within {late - early:.2f} s"
