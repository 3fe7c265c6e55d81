"""Classic BPF programs (linux/filter.h), put together from named steps. Pure.

A program is a run of instructions of 8 bytes; a jump's two distances count the instructions that
are skipped when its condition holds, and when it does not. The kernel runs it on the Ethernet
frame, without the virtio header, and lets the frame in unless the program returns 0.
"""

import struct
from typing import Final, TypeAlias

LD_H: Final = 0x28
LD_B: Final = 0x30
LD_W: Final = 0x20
AND: Final = 0x54
JA: Final = 0x05
JEQ: Final = 0x15
JGT: Final = 0x25
JGE: Final = 0x35
JSET: Final = 0x45
RET: Final = 0x06

RANDOM: Final = 0xFFFFF000 + 56
"""Where a load finds a random word: SKF_AD_OFF + SKF_AD_RANDOM."""

INSTRUCTION = struct.Struct("=HBBI")
"""struct sock_filter: code, jump if true, jump if false, operand."""

Steps: TypeAlias = list[tuple[int, int, int, int]]
"""Instructions before assembly: (code, jump if true, jump if false, operand)."""

ACCEPT: Final[Steps] = [(RET, 0, 0, 0xFFFFFFFF)]
REFUSE: Final[Steps] = [(RET, 0, 0, 0)]


def assemble(steps: Steps) -> bytes:
    """Return the program of ``steps``."""
    return b"".join(INSTRUCTION.pack(*step) for step in steps)
