"""`python -m localmel.cli` does what the command `localmel` does."""

from localmel.cli import main

main()
