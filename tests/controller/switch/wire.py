"""The messages of switch mode, to bytes and back, as the runner does it."""

from controller.node.messages import MAX_MESSAGE_BYTES, Decoder, encode
from controller.switch.messages import SWITCH_MESSAGES

decode = Decoder(SWITCH_MESSAGES).decode

__all__ = ["MAX_MESSAGE_BYTES", "decode", "encode"]
