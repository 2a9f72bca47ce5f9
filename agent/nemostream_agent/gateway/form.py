"""What came with an upload: the file, and what is asked for it, from a multipart form or from JSON.

async with received(request, idle_seconds) as form:
    form.file, form.fields.get("language")
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, cast

import msgspec
from starlette.datastructures import FormData, QueryParams, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive

from .errors import POLICY, Refusal, bad_request, too_big
from .upload import gone

FILES = ("file", "audio")
"""Names of the field that is the file."""
MAX_FIELDS = 1000
MEMORY_BYTES = 1 << 20
MAX_JSON_BYTES = 16 << 20
"""JSON has to be in memory to be read."""


@dataclass(frozen=True, slots=True)
class Form:
    """Fields may stand in the query too; one of the body counts more."""

    file: BinaryIO
    fields: QueryParams


@asynccontextmanager
async def received(request: Request, idle_seconds: float, json: bool = True) -> AsyncIterator[Form]:
    """The whole request; its file is closed at the end. `json`: that is taken too.

    Raises:
        Refusal: the body is no form with a file, or is too large; the client is gone, or sends nothing any more.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    patient = Request(request.scope, _patient(request.receive, idle_seconds))
    query = request.query_params.multi_items()
    try:
        if kind == "multipart/form-data":
            async with patient.form(max_files=4, max_fields=MAX_FIELDS) as form:
                fields = [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
                yield Form(_file(form), QueryParams([*query, *fields]))
        elif kind == "application/json" and json:
            audio, fields = await asyncio.to_thread(_read_json, await _body(patient))
            yield Form(io.BytesIO(audio), QueryParams([*query, *fields]))
        else:
            wanted = "multipart/form-data" + (' or application/json, {"audio": base64}' if json else "")
            raise Refusal(415, POLICY, "content_type", f"an upload is {wanted}; not {kind[:80] or 'nothing'}")
    except ClientDisconnect:
        raise gone() from None
    except HTTPException as error:
        raise bad_request(f"the form cannot be read: {error.detail}") from None


@asynccontextmanager
async def body(request: Request, idle_seconds: float, seen: Callable[[bytes], object]) -> AsyncIterator[BinaryIO]:
    """The body as it is, in a temporary file that is in memory while it is small. `seen` is called with each part.

    Raises:
        Refusal: it is too large; the client is gone, or sends nothing any more.
    """
    with SpooledTemporaryFile(max_size=MEMORY_BYTES) as file:
        upload = UploadFile(cast(BinaryIO, file))
        try:
            async for part in Request(request.scope, _patient(request.receive, idle_seconds)).stream():
                seen(part)
                await upload.write(part)
        except ClientDisconnect:
            raise gone() from None
        await upload.seek(0)
        yield upload.file


def _patient(receive: Receive, seconds: float) -> Receive:
    async def patient() -> Message:
        try:
            return await asyncio.wait_for(receive(), seconds)
        except TimeoutError:
            raise Refusal(408, POLICY, "idle", f"nothing of the upload came for {seconds:g} s") from None

    return patient


def _file(form: FormData) -> BinaryIO:
    found = next((value for name in FILES for value in form.getlist(name)), None)
    if not isinstance(found, UploadFile):
        raise bad_request("the form has no file; send it as the field file, with a file name")
    return found.file


async def _body(request: Request) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_JSON_BYTES:
            raise too_big(f"JSON may have {MAX_JSON_BYTES >> 20} MiB; send larger files as multipart/form-data")
        parts.append(part)
    return b"".join(parts)


def _read_json(data: bytes) -> tuple[bytes, list[tuple[str, str]]]:
    """The audio, and the other members as fields."""
    try:
        given = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(f'the body is not {{"audio": base64, ...}}: {error}') from None
    audio = given.pop("audio", None)
    if not isinstance(audio, str):
        raise bad_request("audio is missing: the sound file, as a base64 string")
    try:
        decoded = base64.b64decode(audio, validate=True)
    except (binascii.Error, ValueError) as error:
        raise bad_request(f"audio is not base64: {error}") from None
    return decoded, [(name, text) for name, value in given.items() for text in _texts(name, value)]


def _texts(name: str, value: Any) -> list[str]:
    """A member of JSON as the values of a field."""
    values = value if isinstance(value, list) else [value]
    if any(isinstance(one, dict | list) for one in values):
        raise bad_request(f"{name[:80]!r} is a text, a number or a list of them")
    return ["true" if one is True else "false" if one is False else str(one) for one in values if one is not None]
