#!/usr/bin/env bash
# Builds the wheel, installs it into an environment of its own, and tests it. Needs a Rust toolchain and Python 3.11 or later with
# venv; with TORCH=1 it installs the CPU build of PyTorch, too, for the tests that need it.
set -euo pipefail
cd "$(dirname "$0")"
MAX_WHEEL_KIB=6144

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
python3 check_lock.py
python3 -m venv "$out/venv"
pip=("$out/venv/bin/pip" --quiet --disable-pip-version-check)
"${pip[@]}" install 'maturin>=1.9.4,<2' mypy numpy pytest
if [ "${TORCH:-0}" = 1 ]; then
    "${pip[@]}" install torch --index-url https://download.pytorch.org/whl/cpu
fi
"$out/venv/bin/maturin" build --release --locked --out "$out/wheels" --interpreter "$out/venv/bin/python"
wheel=("$out"/wheels/*.whl)
size=$(du -k "${wheel[0]}" | cut -f 1)
echo "the wheel has $size KiB"
if [ "$size" -gt "$MAX_WHEEL_KIB" ]; then
    echo "the wheel is larger than $MAX_WHEEL_KIB KiB" >&2
    exit 1
fi
"${pip[@]}" install "${wheel[0]}"
"$out/venv/bin/glowflow" --version
"$out/venv/bin/python" -m pytest -q tests
# The other modules are typed in their sources.
(cd "$out" && venv/bin/python -m mypy.stubtest glowflow --ignore-missing-stub --allowlist "$OLDPWD/stubtest.allow" \
    --mypy-config-file "$OLDPWD/stubtest.ini")
