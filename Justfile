# The manual of this repository: `just --list`.  `just` comes with scripts/test (.venv/bin/just).

export PATH := justfile_directory() / ".venv/bin:" + env("PATH")

# List what can be done here
default:
    @just --list --unsorted

# Set up what is missing and link the example pictures
demo *arguments:
    scripts/demo {{ arguments }}

# Set up what is missing and run the tests; arguments go to pytest
test *arguments:
    scripts/test {{ arguments }}

# Everything CI asks for beside the tests: lint, format, types, layers, architecture
check:
    ruff check .
    ruff format --check .
    mypy
    lint-imports --no-logo
    python -m pytest -q tests/architecture

# Put the code into its one format, and repair what ruff can repair
fmt:
    ruff check --fix .
    ruff format .

# Compare what users get from this tree with an earlier commit, command by command (needs the shared data)
golden *arguments:
    scripts/golden {{ arguments }}

# Measure everything docs/benchmarks.md reports; arguments name single benchmarks
bench *arguments:
    python -m bench.run {{ arguments }}

# Hold the fusion network against arrays of the published code (needs the shared data)
parity:
    python -m pytest -q tests/matchers/kgmel/test_parity.py

# Train the default profile's network and fit its evidence scorers (needs the shared data; about an hour on two cores)
train-embedded *arguments:
    python scripts/train_embedded.py {{ arguments }}

# Which matcher and which of its parts finds an answer that lies in one place only (four minutes on one core)
worlds *arguments:
    python scripts/worlds.py {{ arguments }}

# The table of docs/benchmarks.md: the default profile on val, part by part and with parts left out
eval *arguments:
    python -m bench.run ablations {{ arguments }}

# Build the wheel and the source archive into dist/, from the packages that are installed
build:
    python -m build --no-isolation

# Draw the example pictures anew
draw-examples:
    python scripts/draw_examples.py
