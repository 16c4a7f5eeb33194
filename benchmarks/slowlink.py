"""A link like that to a store far away: each answer is late, each connection has so much a second.

    python benchmarks/slowlink.py LISTEN TARGET MILLISECONDS MEGABYTES

Passes connections to port LISTEN of 127.0.0.1 on to port TARGET.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

_READ = 256 * 1024  # bytes
_PAUSE = 0.05  # seconds without a byte after which the next is a new request or answer


async def pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, late: float, rate: float
) -> None:
    """One direction of a connection. ``late``: seconds; ``rate``: bytes a second."""
    clock = asyncio.get_running_loop().time
    due = clock()
    with suppress(ConnectionError):
        while data := await reader.read(_READ):
            if clock() > due + _PAUSE:
                due = clock() + late
            due += len(data) / rate
            await asyncio.sleep(due - clock())
            writer.write(data)
            await writer.drain()
    writer.close()


async def serve(listen: int, target: int, late: float, rate: float) -> None:
    """Until it is killed."""

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(
            pass_on(reader, outer, late / 2, rate), pass_on(inner, writer, late / 2, rate)
        )

    server = await asyncio.start_server(connect, "127.0.0.1", listen)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    listen, target, late, rate = sys.argv[1:]
    asyncio.run(serve(int(listen), int(target), float(late) / 1000, float(rate) * 1e6))
