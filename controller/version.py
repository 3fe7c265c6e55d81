"""The version of this program, as the installed distribution has it."""

from functools import cache


@cache
def version() -> str:
    """Return the version of the installed distribution, or ``unknown`` if none is installed."""
    # Imported here: this costs 20 ms, and most commands never ask.
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("switchmode")
    except PackageNotFoundError:
        return "unknown"
