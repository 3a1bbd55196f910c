"""A streamed answer that is given up where its client does not take what it is sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Send


class PacedResponse(StreamingResponse):
    """Server-sent events; ``too_slow`` is called, and the stream ends, when one part takes longer than ``send_s``."""

    def __init__(
        self, events: AsyncGenerator[bytes, None], send_s: float, too_slow: Callable[[], Awaitable[None]]
    ) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"cache-control": "no-store"})
        self.events = events
        self.send_s = send_s
        self.too_slow = too_slow

    async def stream_response(self, send: Send) -> None:
        async with aclosing(self.events):
            try:
                await self._send(send, type="http.response.start", status=200, headers=self.raw_headers)
                async for event in self.events:
                    await self._send(send, type="http.response.body", body=event, more_body=True)
                await self._send(send, type="http.response.body", body=b"", more_body=False)
            except TimeoutError:
                await self.too_slow()

    async def _send(self, send: Send, **message: Any) -> None:
        async with asyncio.timeout(self.send_s):
            await send(message)
