"""Train networks on benchmarks: what is read, encoded and kept."""
