"""Tracking: the recorder interface, MLflow and its UI, and the portable model."""
