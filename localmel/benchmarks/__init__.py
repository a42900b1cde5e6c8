"""Benchmarks on disk, published ones and your own: their splits, their KB, and a check for what can spoil a score."""

from localmel.benchmarks.benchmark import Benchmark, BenchmarkFolder, Remarks
from localmel.benchmarks.check import BenchmarkReport, check_benchmark
from localmel.benchmarks.kgmel import published_key
from localmel.benchmarks.leaks import Dropped, Leak, drop_leaked, leak_between, refuse_leaks
from localmel.benchmarks.read import benchmark_kb, find_benchmark, read_benchmark

__all__ = [
    "Benchmark",
    "BenchmarkFolder",
    "BenchmarkReport",
    "Dropped",
    "Leak",
    "Remarks",
    "benchmark_kb",
    "check_benchmark",
    "drop_leaked",
    "find_benchmark",
    "leak_between",
    "published_key",
    "read_benchmark",
    "refuse_leaks",
]
