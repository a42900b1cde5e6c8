"""KGMEL's fusion network: text, image and triples become one vector."""
