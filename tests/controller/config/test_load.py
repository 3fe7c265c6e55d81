"""The configuration: right for good, or refused in one line with the place and the cure."""

import ipaddress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.config.endpoint import Endpoint
from controller.config.ipop import IPOP_KEYS
from controller.config.load import KEYS, check, load
from controller.config.settings import Config, Offloads
from controller.errors import ConfigError
from controller.packets.addresses import StaticBinding
from tests.controller.config.given import FILE, MINIMAL, config, one_line_of, refusal, repr_start


class TestDefaults:
    def test_what_is_not_said(self) -> None:
        c = config()
        assert c.node
        assert c.signal == ("ws://rendezvous.example:8765",)
        assert c.stun == (Endpoint("rendezvous.example", 3478),)
        assert c.state_dir == Path("/var/lib/switchmode/lab")
        assert c.run_dir == Path("/run/switchmode/lab")
        assert c.control_socket == Path("/run/switchmode/lab/controller.sock")
        assert (c.tap, c.bridge, c.switchmode, c.icc, c.icc_port) == ("ipop", None, 1, True, 30000)
        assert (c.tincan_logging, c.controller_logging) == ("INFO", "INFO")
        assert (c.dhcp, c.ra, c.link_local_control) == ("block", "block", False)
        assert (c.turn, c.static, c.network_ignore_list, c.warnings) == ((), (), (), ())
        assert c.allow == {}
        assert c.offloads == Offloads(gso=True, gro=True, tso=True, uso=True, vnet_hdr=True)
        assert c.mtu_probing is True
        assert c.ip4 is None
        assert c.ip6 is None
        assert c.listen is None


class TestValues:
    def test_everything_at_once(self) -> None:
        c = config(
            node="alpha",
            signal=["wss://a.example", "ws://[2001:db8::1]:8765/path", "wss://a.example"],
            stun=["192.0.2.1:3478", "[2001:DB8::1]:19302"],
            turn=[
                {"server": "turn.example:5349", "user": "u", "pass": "p", "transport": "tls"},
                {"server": "192.0.2.1:3478", "user": "u", "pass": "p"},
            ],
            tap="tap0",
            bridge="lxcbr0",
            switchmode=1,
            icc=True,
            icc_port=31000,
            network_ignore_list=["docker0", "wg0"],
            tincan_logging=3,
            controller_logging="debug",
            state_dir="/tmp/state",
            run_dir="/tmp/run",
            dhcp="relay",
            ra="relay",
            link_local_control=True,
            static=[{"ip": "FD00::5", "mac": "52:54:00:12:34:56", "node": "beta", "vlan": 7}],
            allow={"beta": ["10.0.3.128/25", "fd00::/64", "10.0.3.7"]},
            offloads={"gso": False, "vnet_hdr": False},
            mtu_probing=False,
        )
        assert c.signal == ("wss://a.example", "ws://[2001:db8::1]:8765/path")
        assert c.stun == (Endpoint("192.0.2.1", 3478), Endpoint("2001:db8::1", 19302))
        assert [str(server.server) for server in c.turn] == ["turn.example:5349", "192.0.2.1:3478"]
        assert [server.transport for server in c.turn] == ["tls", "udp"]
        assert c.static == (
            StaticBinding(ip="fd00::5", mac="52:54:00:12:34:56", node="beta", vlan=7),
        )
        assert [str(network) for network in c.allow["beta"]] == [
            "10.0.3.128/25",
            "fd00::/64",
            "10.0.3.7/32",
        ]
        assert c.offloads == Offloads(gso=False, gro=True, vnet_hdr=False, tso=False, uso=False)
        assert (c.tincan_logging, c.controller_logging) == ("DEBUG", "DEBUG")

    @pytest.mark.parametrize(
        ("level", "name"), [(0, "CRITICAL"), (1, "ERROR"), (2, "INFO"), (3, "DEBUG")]
    )
    def test_ipop_levels(self, level: int, name: str) -> None:
        assert config(tincan_logging=level, controller_logging=level).controller_logging == name

    def test_stun_of_several_rendezvous(self) -> None:
        c = config(signal=["ws://a:1", "wss://[2001:db8::1]", "ws://a:2"])
        assert c.stun == (Endpoint("a", 3478), Endpoint("2001:db8::1", 3478))
        assert str(c.stun[1]) == "[2001:db8::1]:3478"

    def test_this_controller_is_the_rendezvous(self) -> None:
        c = config(signal={"listen": "192.0.2.1:8765"})
        assert (c.signal, c.listen, c.stun) == ((), Endpoint("192.0.2.1", 8765), ())
        assert config(signal={"listen": "*:8765"}).listen == Endpoint("", 8765)

    def test_addresses_for_the_tap(self) -> None:
        c = config(ip4="172.16.0.1", ip6="fd00::1")
        assert c.ip4 == ipaddress.IPv4Interface("172.16.0.1/24")
        assert c.ip6 == ipaddress.IPv6Interface("fd00::1/64")
        assert str(config(ip4="10.9.8.7", ip4_mask=16).ip4) == "10.9.8.7/16"
        assert str(config(ip6="fd00::1/48").ip6) == "fd00::1/48"

    def test_addresses_beside_a_bridge_are_a_warning(self) -> None:
        (warning,) = config(ip4="10.0.3.9", bridge="lxcbr0").warnings
        assert "ip4" in warning
        assert "lxcbr0" in warning


WRONG = [
    ({"taap": "x"}, "switch.json: taap: unknown key; did you mean "),
    ({"frobnicate": 1}, "known keys: allow, bridge"),
    ({"Network": "x"}, 'Network: unknown key; did you mean "network"?'),
    ({"a\nb": 1}, "a\\nb: unknown key"),
    ({"": 1}, '"": unknown key'),
    ({"network": 5}, "network: is a whole number where text is expected; put it in quotes"),
    ({"network": ""}, "network: is empty"),
    ({"network": "../etc"}, "network: "),
    ({"network": "a" * 65}, "network: "),
    ({"network": ".hidden"}, "network: "),
    ({"secret": "short"}, "openssl rand"),
    ({"secret": None}, "secret: is null"),
    ({"secret": "x" * 2000}, "secret: is too long"),
    ({"secret": "long enough\ud800"}, "secret: has characters"),
    ({"secret_file": "x"}, "secret_file: is given as well as"),
    ({"node": "a\x1b[31mb"}, "node: has characters"),
    ({"node": "n" * 65}, "node: is longer than 64 bytes"),
    ({"node": False}, "node: is a boolean where text is expected; put it in quotes"),
    ({"signal": "http://a"}, 'signal: "http://a" has the scheme "http"; write "ws://'),
    ({"signal": "rendezvous:8765"}, "has no scheme"),
    ({"signal": "ws://"}, "has no host"),
    ({"signal": "ws://a:70000"}, "signal: "),
    ({"signal": "ws://a:0"}, "has no port"),
    ({"signal": "ws://a:b"}, "signal: "),
    ({"signal": "ws://[::1"}, "signal: "),
    ({"signal": "ws://a b/"}, "signal: "),
    ({"signal": "ws://1.2.3"}, '"1.2.3" is not a host'),
    ({"signal": "ws://u:p@a"}, "the URL has a user or a password"),
    ({"signal": []}, "signal: is empty"),
    ({"signal": ["ws://a", 5]}, "signal[1]: is a whole number"),
    ({"signal": ["ws://a"] * 17}, "signal: has 17 entries"),
    ({"signal": {"listen": "0.0.0.0"}}, "signal.listen: "),
    ({"signal": {"listen": "*:0"}}, "signal.listen: has port 0"),
    ({"signal": {"lisen": "*:1"}}, 'signal.lisen: unknown key; did you mean "listen"?'),
    ({"signal": {}}, 'signal.listen: is missing; add "listen": '),
    ({"stun": "a:1"}, "stun: is text where a list is expected"),
    ({"stun": ["stun:a:1"]}, 'stun[0]: "stun:a:1" is a URL'),
    ({"stun": ["a"]}, "stun[0]: "),
    ({"stun": ["a:"]}, "stun[0]: "),
    ({"stun": [":3478"]}, "stun[0]: "),
    ({"stun": ["a:99999"]}, 'stun[0]: port "99999"'),
    ({"stun": ["a:\u0663"]}, "stun[0]: port"),
    ({"stun": ["2001:db8::1:3478"]}, "in brackets"),
    ({"stun": ["[2001:db8::g]:3478"]}, "is not an IPv6 address"),
    ({"stun": ["-a.example:3478"]}, "is not a host"),
    ({"turn": [{"server": "a:1", "user": "u"}]}, "turn[0].pass: is missing"),
    ({"turn": [{"server": "", "user": "", "pass": ""}]}, "turn[0].server: is empty"),
    ({"turn": ["a:1"]}, "turn[0]: is text where an object is expected; write"),
    (
        {"turn": [{"server": "a:1", "user": "u", "pass": "p", "transport": "TCP"}]},
        'turn[0].transport: is "TCP"; did you mean "tcp"?',
    ),
    ({"tap": "sixteen-letters-"}, 'tap: "sixteen-letters-" is 16 bytes long; choose'),
    ({"tap": "eight-ü-ü-ü-ü"}, "tap: "),
    ({"tap": "a/b"}, "tap: "),
    ({"tap": "tap%d"}, "tap: "),
    ({"tap": ".."}, "tap: "),
    ({"bridge": "lxc br"}, "bridge: "),
    ({"bridge": "ipop"}, "bridge: "),
    ({"switchmode": 0}, "switchmode: any other mode than 1 is not supported; write 1"),
    ({"switchmode": True}, "switchmode: is a boolean"),
    ({"switchmode": 1.0}, "switchmode: is a number with a fraction"),
    ({"icc": False}, "icc: false is not supported"),
    ({"icc_port": 0}, "icc_port: 0 is out of range; choose a number from 1 to 65535"),
    ({"icc_port": "30000"}, "icc_port: is text; write a whole number"),
    ({"icc_port": 10**4000}, "icc_port: is out of range"),
    ({"ip4": "10.0.3.300"}, "ip4: "),
    ({"ip4": "10.0.3.5/24"}, "ip4_mask"),
    ({"ip4": "10.0.3.0"}, "ip4: "),
    ({"ip4": "224.0.0.1"}, "ip4: "),
    ({"ip4": "10.0.3.5", "ip4_mask": 33}, "ip4_mask: 33 is out of range"),
    ({"ip4": "10.0.3.5", "ip4_mask": "255.255.255.0"}, "ip4_mask: is text"),
    ({"ip4_mask": 24}, 'ip4_mask: is given without "ip4"'),
    ({"ip6": "fe80::1%eth0"}, "ip6: "),
    ({"ip6": "10.0.3.5"}, "ip6: "),
    ({"ip6": "fd00::1/129"}, "ip6: "),
    ({"ip6": "::1"}, "ip6: "),
    ({"network_ignore_list": "eth0"}, "network_ignore_list: is text where a list"),
    ({"network_ignore_list": [None]}, "network_ignore_list[0]: is null"),
    ({"tincan_logging": 4}, "tincan_logging: 4 is out of range"),
    ({"tincan_logging": "VERBOSE"}, "tincan_logging: "),
    ({"controller_logging": "inf"}, 'controller_logging: is "inf"; did you mean "INFO"?'),
    ({"controller_logging": True}, "controller_logging: "),
    ({"state_dir": "state"}, 'state_dir: "state" is not absolute; start it with /'),
    ({"run_dir": "/" + "x" * 100}, "run_dir: is too long"),
    ({"run_dir": "/a/b", "state_dir": "/a/./b/"}, "run_dir: is the same directory as"),
    ({"dhcp": True}, "dhcp: "),
    ({"ra": "blok"}, 'ra: is "blok"; did you mean "block"?'),
    ({"link_local_control": "stp"}, "link_local_control: is text; write true or false"),
    ({"static": [{"ip": "10.0.3.5", "mac": "x", "node": "b"}]}, "static[0].mac: "),
    (
        {"static": [{"ip": "10.0.3.5", "mac": "ff:ff:ff:ff:ff:ff", "node": "b"}]},
        "static[0].mac: ",
    ),
    ({"static": [{"ip": "10.0.3.5", "mac": "02:00:00:00:00:01"}]}, "static[0].node: is missing"),
    (
        {"static": [{"ip": "10.0.3.5", "mac": "02:00:00:00:00:01", "node": "b"}] * 2},
        'static[1]: "10.0.3.5" is listed twice',
    ),
    (
        {"static": [{"ip": "10.0.3.5", "mac": "02:00:00:00:00:01", "node": "b", "vlan": 4095}]},
        "static[0].vlan: 4095 is out of range",
    ),
    ({"allow": ["10.0.3.0/24"]}, "allow: is a list where an object is expected; write"),
    ({"allow": {"b": "10.0.3.0/24"}}, "allow.b: is text where a list is expected"),
    ({"allow": {"b": ["10.0.3.129/25"]}}, 'allow.b[0]: "10.0.3.129/25" has bits set'),
    ({"allow": {"b": ["10.0.3.0/33"]}}, "allow.b[0]: "),
    ({"offloads": True}, "offloads: is a boolean where an object is expected"),
    ({"offloads": {"gso": 1}}, "offloads.gso: is a whole number; write true or false"),
    ({"offloads": {"vnet_hdr": False, "tso": True}}, "offloads.tso: needs"),
    ({"offloads": {"lro": True}}, "offloads.lro: unknown key"),
    ({"mtu_probing": 0}, "mtu_probing: "),
]


class TestRefusals:
    @pytest.mark.parametrize(("wrong", "told"), WRONG, ids=repr_start)
    def test_wrong(self, wrong: dict[str, Any], told: str) -> None:
        text = refusal({**MINIMAL, **wrong})
        assert text.startswith("switch.json: ")
        assert told in text

    @pytest.mark.parametrize("key", list(IPOP_KEYS))
    def test_ipop_keys_say_what_replaces_them(self, key: str) -> None:
        assert IPOP_KEYS[key] in refusal({**MINIMAL, key: 1})
        assert key not in KEYS

    def test_missing(self) -> None:
        for key, told in (
            ("network", 'network: is missing; add "network"'),
            ("signal", 'signal: is missing; add "signal": "ws://HOST:8765"'),
            ("secret", 'secret: is missing; add "secret" or "secret_file"'),
        ):
            assert told in refusal({k: v for k, v in MINIMAL.items() if k != key})

    @pytest.mark.parametrize("value", [[], None, 3, "x", True, 1.5])
    def test_not_an_object(self, value: object) -> None:
        assert "where an object is expected" in refusal(value)

    def test_a_host_name_that_cannot_be_a_node(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("socket.gethostname", lambda: "a\nb")
        assert 'give this node a name: "node"' in refusal(MINIMAL)


class TestSecretFile:
    def given(self, path: object) -> Config:
        return check({"network": "n", "signal": "ws://a", "secret_file": str(path)}, FILE)

    def test_line_end_does_not_belong_to_it(self, tmp_path: Path) -> None:
        path = tmp_path / "secret"
        path.write_text("correct horse battery\n")
        path.chmod(0o600)
        c = self.given(path)
        assert (c.secret, c.warnings) == ("correct horse battery", ())

    def test_is_found_beside_the_file_that_names_it(self, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("correct horse battery")
        file = tmp_path / "switch.yaml"
        file.write_text("network: n\nsignal: ws://a\nsecret_file: secret\n")
        assert load(file).secret == "correct horse battery"

    def test_readable_by_all(self, tmp_path: Path) -> None:
        path = tmp_path / "secret"
        path.write_text("correct horse battery\n")
        path.chmod(0o644)
        (warning,) = self.given(path).warnings
        assert f"chmod 600 {path}" in warning

    @pytest.mark.parametrize(
        ("content", "told"),
        [
            (b"", "is empty"),
            (b"short\n", "has only 5 characters"),
            (b"\xff\xfe" * 20, "is not UTF-8"),
            (b"two\nlines of text\n", "cannot be printed"),
            (b"x" * 5000, "is larger than 1024 bytes"),
        ],
    )
    def test_wrong_content(self, tmp_path: Path, content: bytes, told: str) -> None:
        path = tmp_path / "secret"
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=told) as caught:
            self.given(path)
        assert str(path) in one_line_of(caught.value)

    @pytest.mark.parametrize("path", ["/nonexistent/secret", "/tmp", "/proc/self/mem", "/dev/zero"])
    def test_unreadable(self, path: str) -> None:
        with pytest.raises(ConfigError) as caught:
            self.given(path)
        assert f'switch.json: secret_file: "{path}" ' in one_line_of(caught.value)


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["10.0.3.5", "fd00::1", "a:1", "ws://a", "02:00:00:00:00:01", "INFO", "udp"])
)
names = st.sampled_from(
    [*KEYS, "server", "user", "pass", "ip", "mac", "node", "vlan", "listen", "gso", "tso"]
)
json_values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(names | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


def config_or_refusal(value: object) -> None:
    try:
        assert isinstance(check(value, FILE), Config)
    except ConfigError as error:
        one_line_of(error)


class TestWhateverIsGiven:
    """Any value in any place gives a Config or a refusal of one line."""

    @given(st.sampled_from(sorted(KEYS)), json_values)
    @settings(max_examples=300, deadline=None)
    def test_anything_for_a_key(self, key: str, value: object) -> None:
        config_or_refusal({**MINIMAL, key: value})

    @given(json_values)
    @settings(max_examples=200, deadline=None)
    def test_anything_at_all(self, value: object) -> None:
        config_or_refusal(value)

    @given(
        st.fixed_dictionaries(
            {},
            optional={
                "turn": st.lists(st.dictionaries(names, scalars, max_size=4), max_size=3),
                "static": st.lists(st.dictionaries(names, scalars, max_size=4), max_size=3),
                "allow": st.dictionaries(st.text(max_size=5), st.lists(scalars, max_size=3)),
                "signal": st.dictionaries(names, scalars, max_size=2) | st.lists(scalars),
                "offloads": st.dictionaries(names, st.booleans()),
            },
        )
    )
    @settings(max_examples=200, deadline=None)
    def test_almost_right(self, more: dict[str, object]) -> None:
        config_or_refusal({**MINIMAL, **more})
