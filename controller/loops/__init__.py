"""Hosts that also meet outside the overlay: whether this TAP closes a loop, and its block.

machine      the state machine: forwarding or blocked, by beacons heard; pure
beacon       the frames by which nodes recognise each other on one segment; pure
guard        sends and hears beacons on the bridge; runs the machine for app
"""
