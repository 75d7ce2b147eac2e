"""The benchmarks that docs/benchmarks.md shows: a module for each section."""
