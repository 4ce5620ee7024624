"""A client of HTTP/3 that isn't ours (aioquic). Usage: client.py ADDRESS PORT ROOTS.PEM; one JSON object on standard output.

Nothing is judged here: it says what it saw, and the test says whether that is right."""

import asyncio
import json
import ssl
import sys

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, StreamReset

PATIENCE = 10


class Client(QuicConnectionProtocol):
    """Answers by stream; each comes to its end, or to a reset."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = H3Connection(self._quic)
        self.answers, self.ended = {}, {}

    def quic_event_received(self, event):
        if isinstance(event, StreamReset):
            self.end(event.stream_id, reset=event.error_code)
        if isinstance(event, ConnectionTerminated):
            for stream in list(self.ended):
                self.end(stream, closed=event.error_code)
        for it in self.http.handle_event(event):
            answer = self.answers.get(it.stream_id)
            if answer is None:
                continue
            if isinstance(it, HeadersReceived):
                headers = {name.decode(): value.decode() for name, value in it.headers}
                answer["trailers" if "headers" in answer else "headers"] = headers
            if isinstance(it, DataReceived):
                answer["body"] += it.data
            if it.stream_ended:
                self.end(it.stream_id)

    def end(self, stream, **how):
        if stream in self.ended and not self.ended[stream].done():
            self.answers[stream].update(how)
            self.ended[stream].set_result(None)

    def begin(self):
        stream = self._quic.get_next_available_stream_id()
        self.answers[stream] = {"body": b""}
        self.ended[stream] = asyncio.get_running_loop().create_future()
        return stream

    async def answer(self, stream):
        self.transmit()
        await asyncio.wait_for(self.ended[stream], PATIENCE)
        answer = self.answers[stream]
        answer["body"] = answer["body"].decode()
        return answer

    async def ask(self, method, host, path, headers=(), body=b"", trailers=()):
        stream = self.begin()
        head = [(":method", method), (":scheme", "https"), (":authority", host), (":path", path), *headers]
        encoded = [(name.encode(), value.encode()) for name, value in head]
        self.http.send_headers(stream, encoded, end_stream=not body and not trailers)
        if body:
            self.http.send_data(stream, body, end_stream=not trailers)
        if trailers:
            self.http.send_headers(stream, [(name.encode(), value.encode()) for name, value in trailers], end_stream=True)
        return await self.answer(stream)


def open_connection(address, port, roots, name):
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name=name)
    configuration.load_verify_locations(roots)
    return connect(address, port, configuration=configuration, create_protocol=Client)


async def told_of(address, port, roots, name):
    """What a client of HTTP/1.1 is told."""
    context = ssl.create_default_context(cafile=roots)
    context.set_alpn_protocols(["http/1.1"])
    reader, writer = await asyncio.open_connection(address, port, ssl=context, server_hostname=name)
    writer.write(f"GET / HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n".encode())
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)).decode()
    writer.close()
    return [line.split(": ", 1)[1] for line in head.splitlines() if line.lower().startswith("alt-svc: ")]


async def main(address, port, roots):
    seen = {"alt-svc": await told_of(address, port, roots, "a.example.com")}
    async with open_connection(address, port, roots, "a.example.com") as client:
        seen["get"] = await client.ask("GET", "a.example.com", "/x?y=1")
        seen["large"] = await client.ask("POST", "a.example.com", "/", body=b"z" * (2 << 20))
        together = [client.ask("GET", "a.example.com", f"/{n}?delay=50") for n in range(20)]
        seen["together"] = [json.loads(it["body"])["path"] for it in await asyncio.gather(*together)]
        length = len((await client.ask("GET", "a.example.com", "/bytes?n=0"))["body"])
        seen["empty"] = length
        seen["other"] = (await client.ask("GET", "b.example.com", "/"))["headers"][":status"]
        message = b"\0\0\0\0\5hello"
        seen["grpc"] = await client.ask(
            "POST", "a.example.com", "/weft.Echo/Echo", [("content-type", "application/grpc"), ("te", "trailers")], message,
            [("x-end", "1")],
        )
        seen["connect"] = await client.ask("GET", "a.example.com", "/", [("connection", "close")])
        seen["after"] = (await client.ask("GET", "a.example.com", "/"))["headers"][":status"]
    async with open_connection(address, port, roots, "b.example.com") as client:
        seen["named"] = (await client.ask("GET", "b.example.com", "/"))["headers"][":status"]
    try:
        async with open_connection(address, port, roots, "c.example.com") as client:
            await client.ask("GET", "c.example.com", "/")
        seen["unknown"] = "let in"
    except (ConnectionError, asyncio.TimeoutError) as error:
        seen["unknown"] = repr(error)
    print(json.dumps(seen))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
