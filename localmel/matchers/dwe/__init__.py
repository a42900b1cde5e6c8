"""DWE+: what a picture shows refines a mention, what is written refines an entity."""
