"""The engine: recipes, their runs under a profile, and the records that these leave. It knows no system."""
