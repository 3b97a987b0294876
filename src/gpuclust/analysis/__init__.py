"""Diagnostics: validity, selection, stability, profiles and comparison of clusterings."""
