"""The installed package."""

from importlib import metadata


def test_the_licences_are_installed():
    licences = {file.name for file in metadata.files("glowflow") if "licenses" in file.parts}
    # Wheels of releases contain the licences of linked crates, too.
    assert licences - {"THIRD-PARTY-LICENSES.txt"} == {"LICENSE-APACHE", "LICENSE-MIT"}
