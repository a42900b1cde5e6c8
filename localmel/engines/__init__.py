"""What runs models and opens what they look at."""
