"""Whether the host's firewall drops what its bridges forward, as Docker leaves it."""


async def drops_bridged(bridge: str) -> str | None:
    """One line that names the cause and the cure, or None."""
    return None
