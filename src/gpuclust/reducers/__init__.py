"""Scaling and reduction of a table to a matrix."""
