"""The client that wants nothing."""

from controller.routes.clients import Client, DummyClient
from controller.routes.metalbond import MetalBond
from tests.controller.routes.world import A1, NET1, VNI, Stranger, add


def test_a_dummy_is_a_client_and_is_not_kept_account_of() -> None:
    client: Client = DummyClient()
    client.add_route(VNI, NET1, A1)
    client.remove_route(VNI, NET1, A1)
    node = MetalBond(client=client).speaker
    a = Stranger.established(node, "a")
    assert a.say(add(NET1, A1)) == []
    assert [route.destination for route in node.routes()] == [NET1]
