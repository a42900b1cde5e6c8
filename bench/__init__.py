"""Programs that measure: what docs/benchmarks.md reports, each number with its command."""
