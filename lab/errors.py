"""What can go wrong in a lab.

LabError
└── CommandFailed   a command inside a namespace failed, or took too long
"""


class LabError(Exception):
    """The lab could not be built, or something in it did not happen in time."""


class CommandFailed(LabError):
    """A command failed: `command`, exit `status` (-1: too late), `output` (both streams)."""

    def __init__(self, command: str, status: int, output: str) -> None:
        super().__init__(f"{command}: exit status {status}\n{output.rstrip()}")
        self.command = command
        self.status = status
        self.output = output
