"""Train any kind of matcher, alone or together with its encoder."""
