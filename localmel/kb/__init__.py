"""Where entities live: the store, its importers, names -> candidates, mentions in a text."""
