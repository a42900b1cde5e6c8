"""localmel links the names in a captioned image to a knowledge base, entirely on this machine."""
