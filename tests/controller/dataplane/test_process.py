"""tincan is started in a session of its own, and says why when that fails."""

import os
from pathlib import Path

from controller.dataplane.process import LEFT_BY_TINCAN, start_tincan


def test_tincan_is_started_in_a_session_of_its_own(tmp_path: Path) -> None:
    process = start_tincan(tmp_path, "INFO")
    try:
        assert os.getsid(process.pid) == process.pid != os.getsid(0)
    finally:
        process.kill()
        process.wait()
    assert {path.name for path in tmp_path.iterdir()} <= set(LEFT_BY_TINCAN)
