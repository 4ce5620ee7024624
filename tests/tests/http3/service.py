"""Clients of HTTP/3 at the Service of a Gateway (aioquic). Usage: service.py ADDRESS PORT ROOTS.PEM HOST COUNT; one JSON object on
standard output: what COUNT clients of HTTP/1.1 are told of HTTP/3, and the answers that COUNT clients of HTTP/3 get.

Each has a connection of its own, since whoever balances load chooses a pod for each. Nothing is judged here."""

import asyncio
import json
import sys

from client import open_connection, told_of


async def main(address, port, roots, host, count):
    told, answers = [], []
    for _ in range(count):
        told += await told_of(address, port, roots, host)
        async with open_connection(address, port, roots, host) as client:
            answer = await client.ask("GET", host, "/")
        answers.append({"status": answer["headers"][":status"], "body": answer["body"]})
    print(json.dumps({"alt-svc": told, "answers": answers}))


asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5])))
