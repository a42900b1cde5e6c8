"""Run `python -m localmel.cli` as the command `localmel`."""

from localmel.cli import main

main()
