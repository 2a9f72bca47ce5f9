"""A file to a speech server over HTTP: `/transcribe`, and `/v1/audio/transcriptions` as OpenAI's API has it.

text = await transcribe("http://host/transcribe", Path("speech.wav"), key)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import msgspec

from . import errors
from .errors import ClientError

CONNECT_SECONDS = 15.0
MODEL = "whisper-1"
"""OpenAI's API wants a name; servers of one model take any."""


class _Text(msgspec.Struct):
    text: str


async def transcribe(url: str, file: Path, key: str | None = None, options: Mapping[str, str] | None = None) -> str:
    """The text of any sound file that the server reads. `options` are form fields.

    Raises:
        ClientError: nobody is there, or the file was not taken.
        OSError: the file cannot be read.
    """
    form = aiohttp.FormData(default_to_multipart=True)
    openai = urlsplit(url).path.endswith("/transcriptions")
    for name, value in {**({"model": MODEL} if openai else {}), **(options or {})}.items():
        form.add_field(name, value)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
    with file.open("rb") as opened:
        form.add_field("file", opened, filename=file.name)
        async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
            try:
                async with session.post(url, data=form) as answer:
                    status, body = answer.status, await answer.read()
            except (aiohttp.ClientError, OSError, ValueError) as error:
                raise errors.unreachable(url, error) from error
    if status != 200:
        raise errors.answered(url, status, _said(body))
    try:
        return msgspec.json.decode(body, type=_Text).text
    except msgspec.MsgspecError as error:
        raise ClientError("bad answer", f"what {errors.shown(url)} has answered holds no text: {error}") from error


def _said(body: bytes) -> str:
    """The sentence in an error's body: {"detail": str}, or {"error": {"message": str}}."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, object])
    except msgspec.MsgspecError:
        return ""
    inner = fields.get("error")
    said = inner.get("message") if isinstance(inner, dict) else fields.get("detail") or inner
    return str(said or "")
