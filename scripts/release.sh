#!/usr/bin/env bash
# Makes the release archive of the program for one platform, NAME.tar.gz (NAME.zip on Windows), and NAME.tar.gz.sha256:
#
#   scripts/release.sh [--target TRIPLE] [--binary FILE] [--out FOLDER]
#
# The archive has the program, shell completions, manual pages, documentation and licences. Without --binary the program is built;
# with it, that file is packed, which has to run on this machine. Equal inputs give equal bytes: times are those of the last commit,
# or SOURCE_DATE_EPOCH. Needs a Rust toolchain and Python 3.9 or later.
set -euo pipefail

usage() {
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
}
binary="" out="" target=$(rustc -vV | sed -n 's/^host: //p')
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || usage
    case $1 in
    --target) target=$2 ;;
    --binary) binary=$(realpath "$2") ;;
    --out) mkdir -p "$2" && out=$(realpath "$2") ;;
    *) usage ;;
    esac
    shift 2
done
cd "$(dirname "$0")/.."
if [ -z "$out" ]; then mkdir -p target/release-archives && out=$PWD/target/release-archives; fi
python=$(command -v python3 || command -v python)
case $target in
*-windows-*) ending=.exe archive=zip ;;
*) ending="" archive=tar.gz ;;
esac

if [ -z "$binary" ]; then
    cargo build --release --locked -p glowflow-cli --target "$target"
    binary=${CARGO_TARGET_DIR:-$PWD/target}/$target/release/glowflow$ending
fi
version=$("$binary" --version | tr -d '\r')
version=${version#glowflow }
name=glowflow-$version-$target
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
stage=$folder/$name
mkdir -p "$stage/completions"
cp "$binary" "$stage/glowflow$ending"
cp -r README.md CHANGELOG.md CITATION.cff LICENSE-MIT LICENSE-APACHE docs "$stage"
for pair in bash:glowflow.bash zsh:_glowflow fish:glowflow.fish powershell:_glowflow.ps1; do
    "$binary" completions "${pair%%:*}" >"$stage/completions/${pair#*:}"
done
"$binary" man-pages "$stage/man"
"$python" scripts/third_party.py "$target" >"$stage/THIRD-PARTY-LICENSES.txt"
"$python" scripts/archive.py "$stage" "$out/$name.$archive"
printf '%s\n' "$out/$name.$archive"
