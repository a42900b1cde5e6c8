"""Match mentions with entities: several methods behind one protocol."""
