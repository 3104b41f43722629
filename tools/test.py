"""`opsin test` without an installed command: the same arguments."""

import sys

from opsin.core.cli import main

if __name__ == "__main__":
    main(["test", *sys.argv[1:]])
