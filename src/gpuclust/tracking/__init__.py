"""Tracking: the recorder interface, MLflow and its UI."""
