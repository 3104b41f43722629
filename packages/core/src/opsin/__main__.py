"""`python -m opsin` and `torchrun … -m opsin`: the command line."""

from opsin.core.cli import main

main()
