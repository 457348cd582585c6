"""The server's HTTP side: routes, authorization, and the form of errors.

    GET  /                       the chat page             GET /health   GET /metrics
    GET  /v1/models              what is served
    POST /v1/completions         continue a text
    POST /v1/chat/completions    answer in a conversation

It listens on this machine alone unless told otherwise, and then refuses other names in the Host header: a web page
cannot reach it by pointing a name of its own at 127.0.0.1. With a key, only /health and the page are open. Bodies must
be JSON by their content type, which a page of another origin may not send without asking first; and nothing is ever
answered with permission to ask.
"""
import hmac
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ..text.html_page import STYLE
from .completions import MAX_BODY, Disconnected, Parser, answer, json_response
from .engine import Engine
from .errors import ApiError
from .metrics import Counter

HERE = Path(__file__).parent
ASSETS = {"/": (HERE / "page.html", "text/html"), "/page.css": (HERE / "page.css", "text/css"),
          "/style.css": (STYLE, "text/css"),
          **{f"/{name}": (HERE / name, "text/javascript") for name in ("page.js", "conversations.js", "markdown.js")},
          "/markdown-it.js": (HERE / "vendor" / "markdown-it.js", "text/javascript")}
PAGE_HEADERS = {"content-security-policy": "default-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'",
                "x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cache-control": "no-cache"}
LOOPBACK = ("127.0.0.1", "localhost", "::1")
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:@/?#\[\]]+)(:[0-9]*)?", re.IGNORECASE)       # a name, and perhaps a port


def create_app(engine: Engine, model_name: str, api_key: str | None = None, max_body: int = MAX_BODY,
               hosts: tuple[str, ...] | None = None) -> Callable:
    """The ASGI application. The engine must be started. hosts: the names the server answers to (default: any)."""
    starlette = need_starlette()
    requests = Counter("minillm_http_requests_total", "HTTP requests, by route and status.", "route", "status")
    guard, complete = partial(guarded, api_key), partial(answer, engine, model_name, max_body, Parser())
    routes: dict[tuple[str, str], Callable] = {
        ("GET", "/v1/models"): guard(partial(list_models, engine, model_name)),
        ("GET", "/v1/models/{model:path}"): guard(partial(show_model, engine, model_name)),
        ("POST", "/v1/completions"): guard(partial(complete, False)),
        ("POST", "/v1/chat/completions"): guard(partial(complete, True)),
        ("GET", "/health"): partial(health, engine),
        ("GET", "/metrics"): guard(partial(metrics, engine, requests)),
        **{("GET", path): partial(asset, *file) for path, file in ASSETS.items()},
    }
    app = starlette.applications.Starlette(
        routes=[starlette.routing.Route(path, endpoint(function), methods=[method])
                for (method, path), function in routes.items()],
        exception_handlers={ApiError: on_api_error, Disconnected: on_disconnected, Exception: on_bug,
                            starlette.exceptions.HTTPException: on_http_error})
    app.router.redirect_slashes = False                 # /health/ is a 404 that says so
    return counted(admitted(app, hosts), requests, [path for _, path in routes])


def need_starlette() -> Any:
    """The package. Raises ImportError with the extra to install."""
    try:
        import starlette.applications
        import starlette.exceptions
        import starlette.responses
        import starlette.routing
    except ImportError:
        raise ImportError("the server needs starlette and uvicorn: pip install 'minillm[serve]'") from None
    return starlette


def endpoint(function: Callable) -> Callable:
    """A coroutine function of the request, as Starlette wants it (it does not look into a partial)."""
    async def call(request: Any) -> Any:
        return await function(request)
    return call


def guarded(api_key: str | None, function: Callable) -> Callable:
    """The function, after the key was checked."""
    async def call(request: Any) -> Any:
        authorize(api_key, request)
        return await function(request)
    return call


def authorize(api_key: str | None, request: Any) -> None:
    """The key must be the one the server was given; the time this takes tells nothing about it."""
    if api_key is None:
        return
    given = request.headers.get("authorization", "").removeprefix("Bearer ").encode("latin-1")     # as the bytes came
    if not hmac.compare_digest(given, api_key.encode()):
        raise ApiError(401, "Incorrect API key provided. Send it as 'Authorization: Bearer KEY'.", None,
                       "invalid_api_key", {"www-authenticate": "Bearer"})


# What surrounds every request

def counted(app: Callable, requests: Counter, paths: list[str]) -> Callable:
    """The application, its answers counted by route and status; paths that are not ours share one name."""
    async def call(scope: dict, receive: Callable, send: Callable) -> None:
        async def observe(message: dict) -> None:
            if message["type"] == "http.response.start":
                path = scope["path"] if scope["path"] in paths else "other"
                requests.add(1, path, message["status"])
            await send(message)
        await app(scope, receive, observe if scope["type"] == "http" else send)
    return call


def admitted(app: Callable, hosts: tuple[str, ...] | None) -> Callable:
    """The application, for requests whose head may be believed."""
    async def call(scope: dict, receive: Callable, send: Callable) -> None:
        error = refusal(scope["headers"], hosts) if scope["type"] == "http" else None
        await (error_response(error) if error else app)(scope, receive, send)
    return call


def refusal(headers: list[tuple[bytes, bytes]], hosts: tuple[str, ...] | None) -> ApiError | None:
    """Why a request with these headers is refused, if it is.

    Two lengths of one body mean that somebody between the client and us may have read it otherwise (RFC 9112, 6.3).
    """
    given = dict(headers)
    if b"content-length" in given and b"transfer-encoding" in given:
        return ApiError(400, "A request has Content-Length or Transfer-Encoding, not both.",
                        headers={"connection": "close"})
    if hosts is not None and host_name(given.get(b"host", b"").decode("latin-1")) not in hosts:
        return ApiError(403, "This server does not answer to the name in the Host header.")
    return None


def host_name(header: str) -> str | None:
    """The name in a Host header, without brackets and port; None for what is no host."""
    found = HOST.fullmatch(header)
    return found and found[1].strip("[]").lower()


def error_response(error: ApiError) -> Any:
    return json_response(error.body(), error.status, error.headers)


async def on_api_error(request: Any, error: ApiError) -> Any:
    return error_response(error)


async def on_http_error(request: Any, error: Any) -> Any:
    return error_response(ApiError(error.status_code, f"{error.detail}: {request.method} {request.url.path[:200]}.",
                                   headers=error.headers))


async def on_disconnected(request: Any, error: Disconnected) -> Any:
    return json_response({}, 499)               # for the metrics; nobody hears it


async def on_bug(request: Any, error: Exception) -> Any:
    return error_response(ApiError(500, "The server failed on this request; its log says more."))


# The small routes

async def list_models(engine: Engine, model_name: str, request: Any) -> Any:
    return json_response({"object": "list", "data": [model_entry(engine, model_name)]})


async def show_model(engine: Engine, model_name: str, request: Any) -> Any:
    if request.path_params["model"] != model_name:
        raise ApiError(404, f"This server has the model {model_name!r} only.", "model", "model_not_found")
    return json_response(model_entry(engine, model_name))


def model_entry(engine: Engine, model_name: str) -> dict:
    return {"id": model_name, "object": "model", "created": engine.created, "owned_by": "minillm",
            "context_length": engine.model.config.block_size, "speculative": engine.draft is not None,
            "filtered": engine.filtered}


async def health(engine: Engine, request: Any) -> Any:
    return json_response({"status": "ok" if engine.healthy else "stopping"}, 200 if engine.healthy else 503)


async def metrics(engine: Engine, requests: Counter, request: Any) -> Any:
    from starlette.responses import Response
    lines = [*engine.metric_lines(), *requests.lines()]
    return Response("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4; charset=utf-8")


async def asset(path: Path, media_type: str, request: Any) -> Any:
    from starlette.responses import Response
    return Response(path.read_bytes(), 200, PAGE_HEADERS, f"{media_type}; charset=utf-8")
