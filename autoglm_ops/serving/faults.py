"""Every refusal the server answers with, in the shape OpenAI's clients read: {"error": {message, type, param, code}}."""

from __future__ import annotations

import json
from typing import Any

from autoglm_ops.errors import UsageError

_TYPES = {
    401: "authentication_error",
    408: "timeout_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class RequestError(UsageError):
    """A request that is not answered, and why. `code` is a stable word; `retry_after` is in seconds."""

    def __init__(
        self, status: int, code: str, message: str, *, param: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """The JSON body."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        headers = {"www-authenticate": "Bearer"} if self.status == 401 else {}
        return headers if self.retry_after is None else {**headers, "retry-after": str(self.retry_after)}

    def raw(self) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        """Body and headers as ASGI sends them, for those who answer before there is a route."""
        body = json.dumps(self.body()).encode()
        fixed = {"content-type": "application/json", "content-length": str(len(body))}
        return body, [(name.encode(), value.encode()) for name, value in {**fixed, **self.headers()}.items()]
