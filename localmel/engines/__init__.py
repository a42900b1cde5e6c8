"""Run models and open the pictures they look at."""
