"""DWE+: refine a mention by what its picture shows, and an entity by what is written about it."""
