"""The capture's filter where the kernel has little room for filters, as before Linux 6.9."""

import subprocess
import sys

import pytest

INSIDE = """
import asyncio, os, pathlib
from collections import Counter
from controller.host.capture import Capture

async def main():
    pathlib.Path("/proc/sys/net/core/optmem_max").write_text("20480")
    counters = Counter()
    capture = Capture("lo", print, print, counters)
    for number in range(16):
        capture._sampled[b"\\x02" + os.urandom(5)] = 0
    capture._sample(None)
    capture._known = {b"\\x02" + os.urandom(5) for _ in range(384)}
    capture._install_filter()
    print("installed", dict(counters))
    capture.close()

asyncio.run(main())
"""


def test_as_many_known_senders_as_there_is_room_for() -> None:
    limit = "test -w /proc/sys/net/core/optmem_max"
    if subprocess.run(["unshare", "-n", "sh", "-c", limit], check=False).returncode:
        pytest.skip("this kernel has one limit for all namespaces")
    command = ["unshare", "-n", sys.executable, "-c", INSIDE]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stdout.startswith("installed"), result.stderr
    assert "capture_filters_refused" not in result.stdout
