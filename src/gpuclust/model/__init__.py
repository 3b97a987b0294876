"""A model on disk and what it predicts, with NumPy, SciPy and pydantic alone: a logged MLflow model carries this package."""
