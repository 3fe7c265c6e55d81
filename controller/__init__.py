"""The controller: ARP and neighbour discovery, addresses, links, signalling, status.

A folder is a layer; imports point down this list, and folders of one line do not know each other.

cli, start          the command ``controller``; the start of a process, with its rights and locks
app                 the composition: what exists, who is connected with whom, start and end
operator            status and the control socket
dataplane, links    tincan's client, process and supervision; which links, who offers them
host, signal        this machine (netlink, the TAP, files); how nodes without a link meet
switch, loops       what a node does together with its peers, each without I/O
config              the user's settings
node                what services share: peers, actions, timers, counters
packets             addresses, packets, their bytes, filter programs
errors, version, command, stopping      what everybody may use

Ways through the house:

- A frame enters at ``host.capture``, becomes a packet in ``packets.decode``, and is judged in
  ``switch``; what the switch answers leaves by ``dataplane`` to tincan, which writes it to the TAP.
- Who has an address is decided in ``switch`` (``table`` holds it, ``sightings`` and
  ``peer_claims`` change it), and who may have one in ``switch.policy``.
- A peer's message is authenticated by tincan's link, decoded by ``switch.messages``, and held
  against ``switch.policy`` before it changes the table. What comes by the rendezvous is opened by
  ``signal.sealing`` and bounded by ``signal.websocket.presence``.
- A new service is a folder beside ``switch``; a new way of signalling implements ``signal.port``;
  a new key of the configuration needs ``config.settings``, ``config.load`` and README's table.
"""
