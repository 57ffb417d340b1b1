"""Pulling: from a reference to a verified file in its place."""
