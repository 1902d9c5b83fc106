"""`python -m glowflow` is the command `glowflow`."""

from glowflow._cli import main

if __name__ == "__main__":
    main()
