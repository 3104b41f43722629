"""`opsin train` without an installed command: the same arguments."""

import sys

from opsin.core.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
