"""What a picture shows: objects, attributes, and portraits that are alike."""
