"""The event loops that WebSockets are read on, as options of ``anyio.run``."""

from __future__ import annotations

from typing import Any

from mediaflow import websocket

LOOPS: dict[str, dict[str, Any]] = {
    "ours": {"backend_options": websocket.LOOP},
    "asyncio": {"backend_options": {}},
    "uvloop": {"backend_options": {"use_uvloop": True}},
    "trio": {"backend": "trio"},
}
