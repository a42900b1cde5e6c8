"""Train networks on benchmarks: read and encode the data, and keep the results."""
