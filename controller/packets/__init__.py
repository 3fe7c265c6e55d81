"""What crosses a bridge, as values and as bytes. Pure.

addresses    MACs, IPs, VLANs, node ids, and what one may own; everybody uses it
packets      ARP, ND and gateway packets as values
resolution   makes questions, answers and announcements; switch calls it
encode       frames from packets; dataplane.runner calls it
decode       packets from frames, by scapy; host.capture calls it
filters      the kernel programs that choose what is captured
"""
