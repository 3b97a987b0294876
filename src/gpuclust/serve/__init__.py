"""Serving: the JSON API and the explorer of an export folder. Imports `model/`, `tracks/` and the errors only."""
