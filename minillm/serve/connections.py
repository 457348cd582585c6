"""Clients' connections: how long one may take, and how many there may be, so that slow or idle clients keep nobody out.

    head       of a request must be here `head_seconds` after the connection was made, or after its first byte
    body       has a time limit of its own (completions.read_body)
    answer     must be read: a connection is dropped that takes nothing for `unread_seconds`
    number     one more than `per_address` of one address, or than `connections` in all, takes the place of the oldest
               whose request is not whole (Slowloris holds nothing but those); one that is being answered keeps its own

uvicorn bounds none of these but the time between two requests.
"""
from asyncio import TimerHandle, Transport
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Limits:
    """Of connections: numbers and seconds. All of them fit into the 1,024 files that a process may usually open."""

    connections: int = 800
    per_address: int = 400
    head_seconds: float = 10
    unread_seconds: float = 30


def connection_class(limits: Limits) -> type:
    """uvicorn's protocol of one HTTP/1.1 connection, within these limits."""
    from h11 import LocalProtocolError
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Connection(H11Protocol):
        timers: dict[str, TimerHandle]

        def connection_made(self, transport: Transport) -> None:        # type: ignore[override]
            super().connection_made(transport)
            self.timers, self.since = {}, self.loop.time()
            make_room(self.connections, self, limits)
            self.drop_after("head", limits.head_seconds)

        @property
        def between_requests(self) -> bool:
            """Whether there is no request to be answered: the head of one is awaited or arriving."""
            return self.cycle is None or self.cycle.response_complete

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if not self.between_requests:
                self.forget("head")
            elif "head" not in self.timers:
                self.drop_after("head", limits.head_seconds)

        def send_400_response(self, msg: str) -> None:
            """For bytes that are no HTTP. In the body of a request they end its answer, too: one is enough."""
            if self.cycle:
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            try:
                super().send_400_response(msg)
            except LocalProtocolError:              # an answer has begun already, or HEAD is to get none
                self.transport.close()

        def pause_writing(self) -> None:
            super().pause_writing()
            self.drop_after("unread", limits.unread_seconds)

        def resume_writing(self) -> None:
            super().resume_writing()
            self.forget("unread")

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            for name in list(self.timers):
                self.forget(name)

        def drop_after(self, name: str, seconds: float) -> None:
            self.timers[name] = self.loop.call_later(seconds, self.transport.abort)

        def forget(self, name: str) -> None:
            if name in self.timers:
                self.timers.pop(name).cancel()

    return Connection


def make_room(connections: set, newest: Any, limits: Limits) -> None:
    """Drop a connection if the newest is one too many: the oldest whose request has not come whole."""
    crowd = [one for one in connections if address(one) == address(newest)]
    if len(crowd) <= limits.per_address:
        if len(connections) <= limits.connections:
            return
        crowd = list(connections)
    dropped = min((one for one in crowd if one.between_requests or one.cycle.more_body), key=lambda one: one.since)
    connections.discard(dropped)                # at once: more may be made before it is told that it is lost
    dropped.transport.abort()


def address(connection: Any) -> str | None:
    return connection.client and connection.client[0]
