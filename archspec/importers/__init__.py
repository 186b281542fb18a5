"""Importers: from a user's model to a spec. None yet."""
