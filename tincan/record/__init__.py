"""Records: how they are put together, cut, received, and taken apart.

layout.py      what crosses between two tincans: datagrams, records, items (pure; everybody)
keys.py        keys of a session, and who is told of an opened record (pure; session, link, pump)
slots.py       gather and scatter lists over one buffer; for batch and landing
pages.py       memory on huge pages, in pieces with one owner each
batch.py       records on their way out: packed, sealed, sent by a carrier; for link.outgoing
landing.py     where received batches land; for pump.ingress
port.py        a socket that is read, and what waits in its landing; for path.attempt and pump
reassembly.py  records whose datagrams came in pieces (pure); for pump.demux
parity.py      the sum of a record's datagrams (pure)
"""
