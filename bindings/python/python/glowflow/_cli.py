"""The command `glowflow`, which the extension module contains."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

from glowflow import _native


def main() -> NoReturn:
    """Runs the command line of this process."""
    # The command handles Ctrl-C itself. A signal that was ignored at the start stays ignored.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    name = os.path.basename(sys.argv[0])
    program = "glowflow" if name in ("__main__.py", "_cli.py") else sys.argv[0]
    sys.exit(_native.command_line([program, *sys.argv[1:]]))


if __name__ == "__main__":
    main()
