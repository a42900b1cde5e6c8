"""Reports as one HTML file each, which asks nothing of any network."""
