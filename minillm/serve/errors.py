"""Errors in the form of OpenAI's protocol."""


class ApiError(Exception):
    """An answer that is an error, in OpenAI's form."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None,
                 headers: dict | None = None):
        super().__init__(message)
        self.status, self.param, self.code, self.headers = status, param, code, headers or {}

    def body(self) -> dict:
        kind = {401: "authentication_error", 429: "rate_limit_error"}.get(
            self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


def too_long(tokens: int | str, block_size: int, param: str) -> ApiError:
    """The error for what cannot fit into the context. tokens: how many were asked for."""
    return ApiError(400, f"This model's context is {block_size} tokens; you asked for {tokens}.", param,
                    "context_length_exceeded")


def brief(value: object) -> str:
    """A value of the client's, as an error shows it."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
