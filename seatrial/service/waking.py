"""Keep a board fresh: PostgreSQL says at once when a snapshot is published, and a look now and then misses none."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg

from seatrial.adapters.sql import CHANNEL

if TYPE_CHECKING:
    from seatrial.service.board import Board

#: Seconds between looks where the database says by itself what is new, and where it does not.
LISTENING_S, LOOKING_S = 1.0, 0.1
#: Seconds before a lost connection to the database is tried again.
_AGAIN_S = 1.0


async def look_now_and_then(board: Board, *, every_s: float) -> None:
    """Read all snapshots every `every_s` seconds, until cancelled."""
    while True:
        await board.refresh()
        await asyncio.sleep(every_s)


async def listen(board: Board, url: str) -> None:
    """Read a snapshot as soon as the PostgreSQL database at `url` says that it was published, until cancelled."""
    while True:
        with suppress(psycopg.Error):
            async with await psycopg.AsyncConnection.connect(url, autocommit=True, connect_timeout=5) as connection:
                await connection.execute(f"LISTEN {CHANNEL}")
                await board.refresh()
                async for notice in connection.notifies():
                    await board.refresh([notice.payload])
        await asyncio.sleep(_AGAIN_S)
