"""Switch mode: who has which address, who may say so, and who is answered. Pure.

switch       the service: events in, actions out; dataplane.runner feeds it
reading      what a captured packet says, and what becomes of a question
table        the bindings of all nodes, by address
sightings    what containers here show: learning, contests, withdrawals
peer_claims  what peers say about addresses is applied here
policy       static bindings and what each peer may claim
conflicts    addresses with two owners, and freezes
claims       addresses that are being probed (RFC 5227)
questions    questions that wait for an answer
prober       asks containers here whether they are still there
leases       follows DHCP requests until the container speaks
gateways     bridge addresses that several hosts share
gateway_host answers for gateways that are local to each host
sync         digests by which nodes compare what they hold
pins         which MAC is told to tincan, and where it is
messages     what nodes say to each other
segment      the state that these files share
snapshot     what status shows
"""
