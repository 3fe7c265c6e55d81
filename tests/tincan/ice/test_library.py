"""What of aioice the check list and the TURN clients stand on: another version fails here."""

import asyncio
import importlib.metadata
import inspect
from typing import Any

import pytest
from aioice import Connection, stun, turn
from aioice import ice as aioice_ice

from tests.tincan.ice.ice_bench import Peer, meet
from tests.tincan.ice.test_checks import REMOTE, Side
from tincan.ice.checks import Base
from tincan.ice.library import CandidatePair, local_candidate

State = CandidatePair.State


def test_the_version_is_the_one_this_was_written_for() -> None:
    assert importlib.metadata.version("aioice").startswith("0.13.")


SIGNATURES = {
    Connection._add_remote_candidate: ["self", "remote_candidate", "network_host"],
    Connection._find_pair: ["self", "protocol", "remote_candidate"],
    Connection._pair_remote_candidate: ["self", "remote_candidate"],
    Connection.build_request: ["self", "pair", "nominate"],
    Connection.check_complete: ["self", "pair"],
    Connection.check_incoming: ["self", "message", "addr", "protocol"],
    Connection.check_start: ["self", "pair"],
    Connection.check_start_task: ["self", "pair"],
    Connection.check_state: ["self", "pair", "state"],
    Connection.request_received: ["self", "message", "addr", "protocol"],
    Connection.respond_error: ["self", "request", "addr", "protocol", "error_code"],
    Connection.switch_role: ["self", "ice_controlling"],
    Connection.sort_check_list: ["self"],
    aioice_ice.StunProtocol.__init__: ["self", "receiver"],
    aioice_ice.StunProtocol.datagram_received: ["self", "data", "addr"],
    aioice_ice.StunProtocol.request: [
        *("self", "request", "addr", "integrity_key", "retransmissions")
    ],
    aioice_ice.StunProtocol.send_stun: ["self", "message", "addr"],
    turn.TurnClientMixin.__init__: [
        *("self", "server", "username", "password", "lifetime", "channel_refresh_time")
    ],
    turn.TurnClientMixin.channel_bind: ["self", "channel_number", "addr"],
    turn.TurnClientMixin.connect: ["self"],
    turn.TurnClientMixin.datagram_received: ["self", "data", "addr"],
    turn.TurnClientMixin.delete: ["self"],
    turn.TurnClientMixin.request_with_retry: ["self", "request"],
    turn.TurnClientMixin.send_data: ["self", "data", "addr"],
    stun.parse_message: ["data"],
    stun.Message.check_message_integrity: ["self", "key"],
    stun.Message.add_message_integrity: ["self", "key"],
}


@pytest.mark.parametrize("function", SIGNATURES, ids=lambda function: function.__qualname__)
def test_aioice_still_has_the_methods_that_we_call_and_override(function: Any) -> None:
    assert list(inspect.signature(function).parameters) == SIGNATURES[function]


async def test_aioice_still_has_the_attributes_that_we_use() -> None:
    connection = Connection(ice_controlling=True)
    kinds = {
        "_check_list": list,
        "_closing": bool,
        "_early_checks_done": bool,
        "_local_candidates": list,
        "_nominated": dict,
        "_protocols": list,
        "_remote_candidates": list,
    }
    for name, kind in kinds.items():
        assert type(getattr(connection, name)) is kind
    assert connection._early_checks.maxlen
    client = turn.TurnClientUdpProtocol(REMOTE, "u", "p", 600, 500)
    for name in ("channel_to_peer", "peer_to_channel"):
        assert getattr(client, name) == {}
    for name in ("refresh_task", "receiver", "mapped_address"):
        assert getattr(client, name) is None
    assert client.server == REMOTE
    pair = CandidatePair(Base(Side().checks, print), local_candidate("host", REMOTE, 0))
    assert (pair.task, pair.nominated, pair.remote_nominated) == (None, False, False)
    assert pair.state is State.FROZEN
    assert {state.name for state in State} == (
        {"FROZEN", "WAITING", "IN_PROGRESS", "SUCCEEDED", "FAILED"}
    )


async def test_aioice_opens_no_socket_and_makes_no_task_for_a_direct_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "create_datagram_endpoint", None)
    monkeypatch.setattr(asyncio, "create_task", None)
    a = Peer(controlling=True, addresses=["127.0.0.1"])
    b = Peer(controlling=False, addresses=["127.0.0.1"])
    try:
        await meet(a, b)
    finally:
        monkeypatch.undo()
        await a.agent.close()
        await b.agent.close()
