"""A small Django application with its models and migrations."""
