"""Statistics, tables, figures and verdicts from run records: reads files, never models."""
