"""The baselines, one readable file each, importing only `harness`; SOURCES.md has origins and deviations."""
