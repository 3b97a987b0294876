"""HDBSCAN: spanning tree, condensed tree, cuts."""
