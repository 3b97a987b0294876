"""Clustering of tables of millions of rows, on a GPU or a CPU, tracked in MLflow."""

__version__ = "0.2.0.dev0"
