#!/usr/bin/env bash
# Builds the wheel, installs it into a new virtual environment, and tests it. Requires a Rust toolchain and
# Python 3.11 or later with venv. With TORCH=1 it also installs the CPU build of PyTorch; if its index cannot
# be reached, the tests that require PyTorch are skipped. With SDIST=1 the wheel is built from the source
# distribution, as by `pip install`. With PROFILE=release it is compiled like the program and shares the dependencies
# in the main workspace's target folder. That is faster, but the wheel is larger, and its size is not checked.
set -euo pipefail
cd "$(dirname "$0")"
MAX_WHEEL_KIB=10240
PROFILE=${PROFILE:-wheel}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/../../target}

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
python3 check_lock.py
python3 -m venv "$out/venv"
pip=("$out/venv/bin/pip" --quiet --disable-pip-version-check)
"${pip[@]}" install 'maturin>=1.9.4,<2' ipykernel matplotlib mypy nbclient numpy pytest
if [ "${TORCH:-0}" = 1 ]; then
    "${pip[@]}" install torch --retries 1 --index-url https://download.pytorch.org/whl/cpu ||
        echo "no PyTorch: its tests are skipped" >&2
fi
source=$PWD
if [ "${SDIST:-0}" = 1 ]; then
    "$out/venv/bin/maturin" sdist --out "$out/sdist"
    source=$out/source
    mkdir "$source"
    tar -xzf "$out"/sdist/*.tar.gz -C "$source" --strip-components 1
fi
python3 ../../scripts/third_party.py "$(rustc -vV | sed -n 's/^host: //p')" . >"$source/THIRD-PARTY-LICENSES.txt"
(cd "$source" && "$out/venv/bin/maturin" build --profile "$PROFILE" --locked --out "$out/wheels" --interpreter "$out/venv/bin/python")
wheel=("$out"/wheels/*.whl)
size=$(du -k "${wheel[0]}" | cut -f 1)
echo "the wheel has $size KiB"
if [ "$PROFILE" = wheel ] && [ "$size" -gt "$MAX_WHEEL_KIB" ]; then
    echo "the wheel is larger than $MAX_WHEEL_KIB KiB" >&2
    exit 1
fi
python3 -m zipfile -l "${wheel[0]}" | grep THIRD-PARTY-LICENSES.txt ||
    { echo "the wheel does not contain the licences of its crates" >&2; exit 1; }
"${pip[@]}" install "${wheel[0]}"
"$out/venv/bin/glowflow" --version
"$out/venv/bin/python" -m pytest -q tests
"$out/venv/bin/jupyter-execute" --timeout 300 ../../examples/tour.ipynb --output "$out/tour.ipynb"
# The other modules have inline types.
(cd "$out" && venv/bin/python -m mypy.stubtest glowflow --ignore-missing-stub --ignore-unused-allowlist \
    --allowlist "$OLDPWD/stubtest.allow" --mypy-config-file "$OLDPWD/stubtest.ini")
