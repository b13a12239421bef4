"""Take one call as the carrier's documentation shows it in Python, and say in JSON lines what came.

Uses the websockets library and nothing of mediaflow.  The documentation's handler takes a second argument, the path,
which the library has not passed for years.
"""

import asyncio
import base64
import hashlib
import json

from websockets.asyncio.server import ServerConnection, serve


def say(**line: object) -> None:
    print(json.dumps(line), flush=True)


async def main() -> None:
    over = asyncio.Event()

    async def take(socket: ServerConnection) -> None:
        audio = hashlib.sha256()
        async for message in socket:
            data = json.loads(message)
            if data["event"] == "start":
                say(heard="start", streamId=data["streamId"], **{"from": data["from"], "to": data["to"]}, whole=data)
            elif data["event"] == "media":
                payload = base64.b64decode(data["media"]["payload"])
                audio.update(payload)
                say(heard="media", bytes=len(payload))
            elif data["event"] == "stop":
                say(heard="stop", reason=data.get("reason", "unknown"))
                break
        await socket.close()
        say(heard="close", code=socket.close_code, audio=audio.hexdigest())
        over.set()

    async with serve(take, "127.0.0.1", 0) as server:
        say(heard="listening", port=next(iter(server.sockets)).getsockname()[1])
        await over.wait()


asyncio.run(main())
