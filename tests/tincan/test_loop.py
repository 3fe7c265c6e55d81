"""Hot descriptors are served at once, and starve nobody."""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable

import pytest

from tincan import loop
from tincan.loop import HotSelector


def run(main: Callable[[HotSelector], Awaitable[None]]) -> None:
    async def timed(selector: HotSelector) -> None:
        async with asyncio.timeout(5):
            await main(selector)

    loop.run(timed)


def test_a_hot_descriptor_is_served_and_may_use_the_loop() -> None:
    one, two = socket.socketpair()

    async def main(selector: HotSelector) -> None:
        running = asyncio.get_running_loop()
        told = running.create_future()
        selector.watch(one.fileno(), lambda: told.set_result(one.recv(10)))
        running.call_later(0.01, two.send, b"hello")
        assert await told == b"hello"
        selector.unwatch(one.fileno())
        later = running.create_future()
        two.send(b"again")
        running.call_later(0.02, later.set_result, None)
        await later  # nobody reads it any more

    with one, two:
        run(main)


def test_timers_and_readers_have_their_turn_beside_a_busy_descriptor() -> None:
    one, two = socket.socketpair()
    cold, warm = socket.socketpair()

    async def main(selector: HotSelector) -> None:
        running = asyncio.get_running_loop()
        count = 0

        def busy() -> None:  # never reads: ready for ever
            nonlocal count
            count += 1

        two.send(b"x")
        selector.watch(one.fileno(), busy)
        late = []
        for _ in range(3):
            begun = time.monotonic()
            await asyncio.sleep(0.02)
            late.append(time.monotonic() - begun - 0.02)
        assert min(late) < 0.1
        heard = running.create_future()
        running.add_reader(cold.fileno(), lambda: heard.set_result(cold.recv(1)))
        warm.send(b"y")
        assert await heard == b"y"
        running.remove_reader(cold.fileno())
        selector.unwatch(one.fileno())
        assert count > 10

    with one, two, cold, warm:
        run(main)


def test_a_callback_may_unwatch_its_neighbour_of_the_same_round() -> None:
    pairs = [socket.socketpair() for _ in range(2)]
    served: list[int] = []

    async def main(selector: HotSelector) -> None:
        for number, (here, there) in enumerate(pairs):
            there.send(b"x")

            def serve(number: int = number) -> None:
                served.append(number)
                for each, _ in pairs:
                    selector.unwatch(each.fileno())

            selector.watch(here.fileno(), serve)
        await asyncio.sleep(0.02)

    run(main)
    assert len(served) == 1
    for pair in pairs:
        for sock in pair:
            sock.close()


def test_a_fault_in_a_callback_is_logged_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    reading, writing = os.pipe()

    async def main(selector: HotSelector) -> None:
        def fail() -> None:
            os.read(reading, 1)
            raise ZeroDivisionError

        selector.watch(reading, fail)
        os.write(writing, b"x")
        await asyncio.sleep(0.02)
        selector.unwatch(reading)

    with caplog.at_level(logging.ERROR):
        run(main)
    assert "the pump failed" in caplog.text
    os.close(reading)
    os.close(writing)
