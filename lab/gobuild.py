"""The real MetalBond, built with the Go toolchain from its published module.

The binary is kept in the user's cache directory, outside the checkout, and built once.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

MODULE: Final = "github.com/ironcore-dev/metalbond"
VERSION: Final = "v0.5.0"
BUILD_S: Final = 600.0


class GoMissing(Exception):
    """The real program cannot be had here, and why."""


def metalbond() -> Path:
    """Return the file of the program. Raises GoMissing."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "switchmode"
    program = cache / f"metalbond-{VERSION}"
    if program.exists():
        return program
    go = shutil.which("go")
    if go is None:
        raise GoMissing(f"no Go toolchain, so no {MODULE} {VERSION} to speak with: install go")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        (scratch / "go.mod").write_text(
            f"module scratch\n\ngo 1.23\n\nrequire {MODULE} {VERSION}\n"
        )
        built = subprocess.run(
            [go, "build", "-o", str(scratch / "metalbond"), f"{MODULE}/cmd"],
            cwd=scratch,
            env={**os.environ, "GOFLAGS": "-mod=mod", "GOSUMDB": "off"},
            capture_output=True,
            text=True,
            timeout=BUILD_S,
            check=False,
        )
        if built.returncode:
            last = (built.stderr.strip().splitlines() or ["no word"])[-1]
            raise GoMissing(f"go build {MODULE} {VERSION} failed: {last}")
        partial = cache / f"{program.name}.{os.getpid()}"
        shutil.copy2(scratch / "metalbond", partial)
        partial.rename(program)
    return program
