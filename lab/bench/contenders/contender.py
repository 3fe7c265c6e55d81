"""What the bench knows of a contender."""

from typing import Any, ClassVar

from lab.bench.topology import Pair, Segment


class Contender:
    """One overlay, to be brought up between the two hosts of `pair` for `segment`.

    `mtu` is what its manual tells a user to give the containers on a path of 1500; `settings` one
    line about the rest; `packages` the Debian packages that it needs; `encrypted` whether what
    crosses the path is (the bench looks).
    """

    name: ClassVar[str]
    mtu: ClassVar[int] = 1500
    settings: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    encrypted: ClassVar[bool] = True

    def __init__(self, pair: Pair, segment: Segment) -> None:
        self.pair = pair
        self.segment = segment

    def start(self) -> None:
        """Bring it up. Frames need not pass yet when it returns."""
        raise NotImplementedError

    def settle(self) -> None:
        """Wait for what it does by itself soon after frames pass, such as finding the path MTU: the
        works measure what a user has after a minute. Raises LabError if that does not happen."""

    def observe(self) -> dict[str, Any]:
        """What it says of itself: taken before and after each work."""
        return {}

    def judge(
        self, work: str, before: dict[str, Any], after: dict[str, Any]
    ) -> tuple[dict[str, Any], list[str]]:
        """(what to note beside the figure, what makes the figure invalid). A note called `beside`
        is one line that is printed with the figure."""
        return {}, []
