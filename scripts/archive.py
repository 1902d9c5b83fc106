"""Packs a folder as a .tar.gz or .zip whose bytes depend on names, contents and SOURCE_DATE_EPOCH alone, with its checksum:

    python3 scripts/archive.py FOLDER ARCHIVE
"""

import gzip
import hashlib
import io
import os
import sys
import tarfile
import time
import zipfile
from pathlib import Path

# 9 takes several times as long for 1 % less.
LEVEL = 6
# A zip file cannot have earlier times.
FIRST_ZIP_TIME = 315532800


def main(folder: Path, archive: Path) -> None:
    when = int(os.environ["SOURCE_DATE_EPOCH"])
    files = sorted((path.relative_to(folder.parent).as_posix(), path) for path in folder.rglob("*") if path.is_file())
    pack = pack_zip if archive.suffix == ".zip" else pack_tar
    pack(archive, when, [(name, mode(path), path.read_bytes()) for name, path in files])
    checksum = hashlib.sha256(archive.read_bytes()).hexdigest()
    archive.with_name(archive.name + ".sha256").write_text(f"{checksum}  {archive.name}\n", newline="\n")


def mode(path: Path) -> int:
    return 0o755 if path.stem == "glowflow" and path.suffix in ("", ".exe") else 0o644


def pack_tar(archive: Path, when: int, files: list[tuple[str, int, bytes]]) -> None:
    with (
        archive.open("wb") as file,
        gzip.GzipFile("", "wb", LEVEL, file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name, permissions, content in files:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(content), permissions, when
            tar.addfile(entry, io.BytesIO(content))


def pack_zip(archive: Path, when: int, files: list[tuple[str, int, bytes]]) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=LEVEL) as packed:
        for name, permissions, content in files:
            entry = zipfile.ZipInfo(name, time.gmtime(max(when, FIRST_ZIP_TIME))[:6])
            entry.compress_type, entry.external_attr, entry.create_system = zipfile.ZIP_DEFLATED, permissions << 16, 3
            packed.writestr(entry, content)


main(Path(sys.argv[1]), Path(sys.argv[2]))
