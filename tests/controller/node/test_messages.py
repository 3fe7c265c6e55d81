"""Messages are told apart by their tag; what no service knows is counted apart."""

import pytest

from controller.errors import RpcError
from controller.node.messages import MAX_MESSAGE_BYTES, Decoder, PeerMessage, encode, tag_of
from controller.switch.messages import SWITCH_MESSAGES, Clear


class Echo(PeerMessage, frozen=True, tag="echo"):
    """A message of another service."""

    text: str


class Rival(PeerMessage, frozen=True, tag="clear"):
    """A message with a tag of switch mode's."""


def reason(data: bytes) -> str:
    with pytest.raises(RpcError) as caught:
        Decoder(SWITCH_MESSAGES).decode(data)
    return caught.value.reason


def test_one_decoder_reads_the_messages_of_all_services() -> None:
    decoder = Decoder((*SWITCH_MESSAGES, Echo))
    for message in (Echo("hello"), Clear("10.0.3.7")):
        assert decoder.decode(encode(message)) == message
    assert tag_of(Echo) == "echo"


def test_a_tag_that_no_service_knows_is_not_malformed() -> None:
    assert reason(encode(Echo("hello"))) == "unknown"
    assert reason(b'{"m":"clear"}') == "malformed"
    assert reason(b'{"m":7}') == "malformed"
    assert reason(b"[]") == "malformed"
    assert reason(b"") == "malformed"
    assert reason(b" " * (MAX_MESSAGE_BYTES + 1)) == "oversized"
    assert reason(b'{"m":"clear","ip":"224.0.0.1"}') == "bad_address"


def test_no_tag_has_two_owners() -> None:
    with pytest.raises(ValueError, match="clear"):
        Decoder((*SWITCH_MESSAGES, Rival))
