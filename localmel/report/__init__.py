"""Turn evaluations and comparisons into tables, sentences and pages."""
