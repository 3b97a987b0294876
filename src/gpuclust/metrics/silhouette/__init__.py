"""The silhouette of several labelings in one pass."""
