"""Reports as self-contained HTML files that request nothing from any network."""
