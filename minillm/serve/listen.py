"""Starting, listening and a graceful shutdown of the server; uvicorn (https://www.uvicorn.org) speaks HTTP."""
import logging
import socket
from collections.abc import Callable
from typing import Any

from .app import LOOPBACK, create_app
from .connections import Limits, connection_class
from .engine import Engine

Ready = Callable[[str], object]
WAITING = 2048              # connections that the system holds until they are accepted
AT_ONCE = 16                # accepted before those that they drop have given their files back


def serve(engine: Engine, model_name: str, host: str = "127.0.0.1", port: int = 8000, api_key: str | None = None,
          grace: float = 10.0, ready: Ready | None = None, names: tuple[str, ...] = ()) -> None:
    """Serve until SIGTERM or SIGINT; then no request is taken any more and what runs has `grace` seconds to finish.

    ready: called with the address once the server listens. names: in the Host header that it answers to, beside those
    of the loopback; by default it answers to any if others may reach it. Raises OSError if the port is taken.
    """
    server = make_server(engine, model_name, host, port, api_key, grace, ready, names)
    engine.start()
    try:
        with listening_socket(host, port) as sock:
            server.run([sock])
    finally:
        engine.close()
        engine.thread.join(timeout=5)


def make_server(engine: Engine, model_name: str, host: str = "127.0.0.1", port: int = 8000, api_key: str | None = None,
                grace: float = 10.0, ready: Ready | None = None, names: tuple[str, ...] = (),
                limits: Limits = Limits()) -> Any:
    """The uvicorn.Server that `serve` runs."""
    uvicorn = need_uvicorn()
    logging.getLogger("asyncio").addFilter(is_no_lost_client)

    class Server(uvicorn.Server):       # type: ignore[name-defined]
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            for sock in sockets or []:
                sock.listen(WAITING)            # asyncio has set it to AT_ONCE: its one number for both
            if ready:
                ready(f"http://{host}:{sockets[0].getsockname()[1] if sockets else port}")

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            engine.close(grace)                     # before the wait for open connections, which it brings to an end
            await super().shutdown(sockets)

    app = create_app(engine, model_name, api_key, hosts=(*LOOPBACK, *names) if host in LOOPBACK or names else None)
    return Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", server_header=False,
                                 http=connection_class(limits), ws="none", backlog=AT_ONCE,
                                 timeout_keep_alive=30, timeout_graceful_shutdown=int(grace) + 5))


def is_no_lost_client(record: logging.LogRecord) -> bool:
    """All but what asyncio says of the pieces of an answer whose client has left: the metrics count that."""
    return record.getMessage() != "socket.send() raised exception."


def listening_socket(host: str, port: int) -> socket.socket:
    """Bound before the server starts, so that a port that is taken is a plain OSError.

    Made by hand because asyncio sends at once (TCP_NODELAY) only on sockets that say they are TCP; others wait 40 ms
    before the second packet of every answer.
    """
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(WAITING)
        return sock
    except OSError as error:
        sock.close()
        raise OSError(f"cannot listen on {host}, port {port}: {error.strerror}") from None


def need_uvicorn() -> Any:
    """The package. Raises ImportError with the extra to install."""
    try:
        import uvicorn
    except ImportError:
        raise ImportError("the server needs starlette and uvicorn: pip install 'minillm[serve]'") from None
    return uvicorn
