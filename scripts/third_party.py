"""Prints the licences of the crates that are linked into the program, or into the package in FOLDER, each text once:

    python3 scripts/third_party.py TRIPLE [FOLDER]
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

PROGRAM = "glowflow-cli"
LICENCE = re.compile(r"(LICEN[CS]E|COPYING|COPYRIGHT|NOTICE|UNLICENSE|OFL|UFL)|licen[cs]e|^Hack-Regular\.txt$")
# Program text and tables have names like these, too.
CODE = {".rs", ".toml", ".json", ".py", ".ttf"}
# Name of this text's file in our packages.
OUTPUT = "THIRD-PARTY-LICENSES.txt"
RULE = "=" * 80


def main(target: str, folder: str = ".") -> None:
    metadata = read_metadata(target, folder)
    packages = {package["id"]: package for package in metadata["packages"]}
    linked = [packages[package] for package in linked_packages(metadata, packages)]
    linked.sort(key=lambda package: (package["name"], package["version"]))
    print("glowflow is licensed under MIT or Apache-2.0. It contains these crates, under their own licences.\n")
    texts: dict[str, tuple[list[str], str]] = {}
    for package in linked:
        name = f"{package['name']} {package['version']}"
        if package["source"]:
            print(f"{name}: {package['license'] or 'see the text'}")
        for text in licence_texts(package):
            # Copies of one text differ in blanks and line ends.
            texts.setdefault(" ".join(text.split()), ([], text))[0].append(name)
    for names, text in texts.values():
        print(f"\n{RULE}\n{', '.join(names)}\n{RULE}\n\n{text.strip()}")


def read_metadata(target: str, folder: str) -> dict:
    command = [os.environ.get("CARGO", "cargo"), "metadata", "--format-version=1", "--locked", "--filter-platform", target]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=folder).stdout)


def linked_packages(metadata: dict, packages: dict[str, dict]) -> set[str]:
    """The folder's package, or else the program, and its normal dependencies.

    Procedural macros are left out: they run in the compiler.
    """
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    todo = [metadata["resolve"]["root"] or next(package for package in packages if packages[package]["name"] == PROGRAM)]
    found: set[str] = set()
    while todo:
        package = todo.pop()
        if package in found or any("proc-macro" in target["kind"] for target in packages[package]["targets"]):
            continue
        found.add(package)
        for dependency in nodes[package]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                todo.append(dependency["pkg"])
    return found


def licence_texts(package: dict) -> list[str]:
    """The licence files of a package, in its folder or one below."""
    folder = Path(package["manifest_path"]).parent
    found = [path for path in (*folder.glob("*"), *folder.glob("*/*")) if path.is_file() and not path.is_symlink()]
    found = [path for path in sorted(found) if LICENCE.search(path.name) and path.suffix not in CODE]
    found = [path for path in found if package["source"] or path.name != OUTPUT]
    return [path.read_text(encoding="utf-8", errors="replace") for path in found]


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    main(*sys.argv[1:])
