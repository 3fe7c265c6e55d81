"""An agent as a process, for a namespace: JSON lines in and out (see test_ice.py).

->  {"controlling", "addresses", "stun", "turn", "refuse"}      (argument)
<-  {"description", "gather_s"}
->  the peer's description
<-  {"path", "connect_s"} or {"error", "connect_s"}
<-  {"received": what came along the peer's path}
->  "close"
<-  {"paths": later ones, "close_s", "tasks", "sockets", "counters"}
"""

import asyncio
import json
import sys
import time
from typing import Any

from tests.tincan.ice.ice_bench import Peer, send
from tincan.control.codec import decode, encode
from tincan.errors import LinkError
from tincan.ice import agent, turn
from tincan.path.description import Description, TurnServer
from tincan.path.path import Path
from tincan.path.stream import Stream


def say(**message: Any) -> None:
    print(json.dumps(message), flush=True)


def shown(path: Path) -> dict[str, Any]:
    return {
        "local": path.local,
        "remote": path.remote,
        "peer": path.peer_address[0],
        "channel": path.carrier.channel,
        "stream": isinstance(path.carrier, Stream),
    }


async def main(settings: dict[str, Any]) -> None:
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
    )
    peer = Peer(
        controlling=settings["controlling"],
        addresses=settings["addresses"],
        stun=[(host, port) for host, port in settings["stun"]],
        turn=[TurnServer(**server) for server in settings["turn"]],
    )
    vars(turn)["CHANNEL_REFRESH"] = settings["refresh"]
    vars(agent)["CONNECT_TIMEOUT"] = settings["timeout"]
    start = time.monotonic()
    ours = await peer.agent.gather()
    say(description=encode(ours).decode(), gather_s=time.monotonic() - start)
    theirs = decode((await lines.readline()).strip(), Description)
    start = time.monotonic()
    try:
        path = await peer.agent.connect(theirs)
    except LinkError as error:
        say(error=str(error), connect_s=time.monotonic() - start)
    else:
        say(path=shown(path), connect_s=time.monotonic() - start)
        say(received=await exchange(peer))
        if settings["hold"]:
            await asyncio.sleep(settings["hold"])
            while not peer.pump.records.empty():
                peer.pump.records.get_nowait()
            say(held=await exchange(peer))
    await lines.readline()
    start = time.monotonic()
    await peer.agent.close()
    say(
        paths=[shown(path) for path in peer.paths],
        close_s=time.monotonic() - start,
        tasks=len(asyncio.all_tasks()) - 1,
        sockets=len(peer.pump.open_sockets),
        counters=dict(peer.counters),
    )


async def exchange(peer: Peer) -> str | None:
    """Send along the path until something has come, or 3 s are over."""

    async def repeat() -> None:
        while peer.agent.path is not None:
            send(peer.agent.path, b"\x80" + peer.agent.path.local.encode())
            await asyncio.sleep(0.1)

    sending = asyncio.create_task(repeat())
    try:
        return (await asyncio.wait_for(peer.pump.records.get(), 3))[1:].decode()
    except TimeoutError:
        return None
    finally:
        await asyncio.sleep(0.3)  # so that the peer hears us too
        sending.cancel()


asyncio.run(main(json.loads(sys.argv[1])))
