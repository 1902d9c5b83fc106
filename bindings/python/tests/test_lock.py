"""The comparison of lock files."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("tomllib")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from check_lock import differences, packages  # noqa: E402


def test_other_versions_are_named(tmp_path):
    (tmp_path / "ours").write_text(
        """
        [[package]]
        name = "glowflow"
        version = "0.1.0"

        [[package]]
        name = "ndarray"
        version = "0.16.1"
        source = "registry"
        checksum = "aa"

        [[package]]
        name = "pyo3"
        version = "0.28.3"
        source = "registry"
        checksum = "bb"
        """
    )
    (tmp_path / "theirs").write_text(
        """
        [[package]]
        name = "glowflow"
        version = "0.1.0"

        [[package]]
        name = "ndarray"
        version = "0.17.2"
        source = "registry"
        checksum = "cc"
        """
    )
    ours, theirs = packages(tmp_path / "ours"), packages(tmp_path / "theirs")
    (line,) = differences(ours, theirs)
    assert line.startswith("ndarray: 0.16.1") and "0.17.2" in line
    assert differences(theirs, theirs) == []
