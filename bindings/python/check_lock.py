"""Checks that this workspace and the main one lock the same versions of the crates that both use.

Every package of this lock file that the other one names must be locked there in the same version, from the same source and
with the same checksum. `cp ../../Cargo.lock .` followed by `cargo metadata` makes them agree.
"""

import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent


def packages(path: Path) -> dict[str, set[tuple[str, str, str]]]:
    """Versions, sources and checksums, by package name."""
    found: dict[str, set[tuple[str, str, str]]] = {}
    for package in tomllib.loads(path.read_text(encoding="utf-8"))["package"]:
        identity = package["version"], package.get("source", "here"), package.get("checksum", "")
        found.setdefault(package["name"], set()).add(identity)
    return found


def differences(ours: dict, theirs: dict) -> list[str]:
    """One line per crate that is locked in different versions."""
    lines = []
    for name in sorted(ours.keys() & theirs.keys()):
        other = ours[name] - theirs[name]
        if other:
            versions = ", ".join(sorted(version for version, *_ in other))
            expected = ", ".join(sorted(version for version, *_ in theirs[name]))
            lines.append(f"{name}: {versions} in bindings/python/Cargo.lock, {expected} in Cargo.lock")
    return lines


def main() -> None:
    ours, theirs = packages(HERE / "Cargo.lock"), packages(HERE.parents[1] / "Cargo.lock")
    lines = differences(ours, theirs)
    if lines:
        sys.exit("\n".join([*lines, "run: cp ../../Cargo.lock . && cargo metadata --format-version 1 > /dev/null"]))
    print(f"{len(ours.keys() & theirs.keys())} shared crates are locked alike")


if __name__ == "__main__":
    main()
