"""Who calls, as a dependency of HTTP endpoints: a Refusal unless the client is let in.

@router.post("/transcribe")
async def transcribe(who: Caller) -> Response: ...
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from .auth import Auth

_documented = HTTPBearer(auto_error=False, description="an API key or a LiveKit token, where the gateway wants one")


async def caller(request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Depends(_documented)]) -> str:
    """Auth.who. Raises Refusal."""
    auth: Auth = request.app.state.auth
    return auth.who(request)


Caller = Annotated[str, Depends(caller)]
