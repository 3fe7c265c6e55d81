"""The keys of IPOP's configuration that are gone, and its numbers for log levels. Pure."""

from typing import Final

IPOP_LEVELS: Final = ("CRITICAL", "ERROR", "INFO", "DEBUG")
"""Our names of IPOP's levels 0 to 3.

There 0 is nothing, 1 LS_ERROR, 2 LS_INFO, 3 LS_SENSITIVE (set_logging in ipop-tincan's
controlleraccess.cc).
"""

_NO_XMPP: Final = 'Switchmode has no XMPP: remove it, and name a rendezvous in "signal"'
_IMPLIED: Final = "remove it: this is done by itself"
_ON_DEMAND: Final = "remove it: links are made at once and cost little when idle"
_MULTIHOP: Final = "remove it: every node has a direct or a relayed link to every other"
_SOCKETS: Final = 'remove it: controller and tincan meet in "run_dir"'
IPOP_KEYS: Final = {
    "xmpp_username": _NO_XMPP,
    "xmpp_password": 'Switchmode has no XMPP: use "secret" or "secret_file"',
    "xmpp_host": 'Switchmode has no XMPP: name a rendezvous in "signal" ("ws://HOST:8765")',
    "nick": 'use "node" instead',
    "ip6_prefix": 'use "ip6" instead, with a whole address',
    "ip6_mask": 'write it into "ip6" ("fd00::5/64")',
    "subnet_mask": 'use "ip4_mask" instead',
    "sec": "remove it: every link is encrypted",
    "wait_time": _IMPLIED,
    "buf_size": _IMPLIED,
    "local_uid": 'remove it: the id is the key in "state_dir"',
    "uid_size": 'remove it: the id is the key in "state_dir"',
    "router_mode": 'remove it: "switchmode" is the only mode',
    "on-demand_connection": _ON_DEMAND,
    "on-demand_inactive_timeout": _ON_DEMAND,
    "trim_enabled": _ON_DEMAND,
    "multihop": _MULTIHOP,
    "multihop_cl": _MULTIHOP,
    "multihop_ihc": _MULTIHOP,
    "multihop_hl": _MULTIHOP,
    "multihop_tl": _MULTIHOP,
    "multihop_sr": _MULTIHOP,
    "svpn_port": _SOCKETS,
    "contr_port": _SOCKETS,
    "localhost": _SOCKETS,
    "localhost6": _SOCKETS,
    "stat_report": "remove it: nothing is reported to anybody; see controller status",
    "stat_server": "remove it: nothing is reported to anybody; see controller status",
    "stat_server_port": "remove it: nothing is reported to anybody; see controller status",
}
"""The keys of the flat configuration of IPOP 14.07 that we do not have, and what to do instead."""
