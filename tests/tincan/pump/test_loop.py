"""Hot descriptors are served at once, and starve nobody."""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable

import pytest

from tincan.pump import loop
from tincan.pump.loop import REHEARSAL, WARM, HotSelector


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

        def serve(_: float) -> bool:
            told.set_result(one.recv(10))
            return False

        selector.watch(one.fileno(), serve)
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

        def busy(_: float) -> bool:  # never reads: ready for ever
            nonlocal count
            count += 1
            return True

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

            def serve(_: float, number: int = number) -> bool:
                served.append(number)
                for each, _there in pairs:
                    selector.unwatch(each.fileno())
                return True

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
        def fail(_: float) -> bool:
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


def test_traffic_in_quick_succession_keeps_warm_for_a_while() -> None:
    one, two = socket.socketpair()

    async def main(selector: HotSelector) -> None:
        rehearsals: list[float] = []
        selector.rehearse = rehearsals.append
        moved = True

        def serve(_: float) -> bool:
            one.recv(1)
            return moved

        selector.watch(one.fileno(), serve)
        two.send(b"x")
        await asyncio.sleep(2 * WARM)
        assert not rehearsals, "one event alone is no traffic"
        for _ in range(3):
            two.send(b"x")
            await asyncio.sleep(WARM / 5)
        await asyncio.sleep(2 * WARM)
        assert 0 < len(rehearsals) <= 2 * WARM / REHEARSAL
        count = len(rehearsals)
        moved = False
        for _ in range(3):
            two.send(b"x")
            await asyncio.sleep(WARM / 5)
        assert len(rehearsals) == count, "what moves no frame keeps nothing warm"
        selector.unwatch(one.fileno())

    with one, two:
        run(main)


def test_a_timer_is_not_late_for_a_rehearsal(caplog: pytest.LogCaptureFixture) -> None:
    one, two = socket.socketpair()

    async def main(selector: HotSelector) -> None:
        def fail(_: float) -> None:
            raise ZeroDivisionError

        selector.rehearse = fail
        selector.watch(one.fileno(), lambda _: bool(one.recv(1)))
        for _ in range(5):
            two.send(b"x")
            await asyncio.sleep(0.003)
        begun = time.monotonic()
        await asyncio.sleep(WARM / 2)
        assert WARM / 2 <= time.monotonic() - begun < 2.0
        selector.unwatch(one.fileno())

    with caplog.at_level(logging.ERROR), one, two:
        run(main)
    assert "the rehearsal failed" in caplog.text


def test_a_descriptor_that_always_fails_starves_no_other() -> None:
    pairs = [socket.socketpair() for _ in range(3)]
    served: list[float] = []

    async def main(selector: HotSelector) -> None:
        running = asyncio.get_running_loop()

        def fail(_: float) -> bool:
            raise ZeroDivisionError

        def serve(now: float) -> bool:
            pairs[1][0].recv(1)
            served.append(now)
            return True

        for _, there in pairs:
            there.send(b"x")
        selector.watch(pairs[0][0].fileno(), fail)
        selector.watch(pairs[1][0].fileno(), serve)
        heard = running.create_future()
        cold = pairs[2][0]
        running.add_reader(cold.fileno(), lambda: heard.set_result(cold.recv(1)))
        assert await heard == b"x"
        running.remove_reader(cold.fileno())
        for here, _ in pairs[:2]:
            selector.unwatch(here.fileno())

    logging.disable(logging.ERROR)
    try:
        run(main)
    finally:
        logging.disable(logging.NOTSET)
    assert len(served) == 1
    for pair in pairs:
        for sock in pair:
            sock.close()
