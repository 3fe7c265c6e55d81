"""The edges to the kernel, and what stands in for them.

device.py   protocols: a network device, a UDP socket; addresses; for record, path, pump
tap.py      the TAP, by ioctl and ctypes; opened by the daemon
twin.py     the device in memory, for tests and benches
vnet.py     layout of the virtio header, and the door to every device's ``write``
segment.py  segmentation and checksums in software (pure); for pump.delivery and link.loss
udp.py      UDP sockets with segmentation offload; opened by path.attempt
pinned.py   buffers whose address the kernel is given; for udp and record
filter.py   assembler of classic BPF programs (pure); for switching.storm
"""
