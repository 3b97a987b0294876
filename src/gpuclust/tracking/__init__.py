"""What is kept: the recorder, MLflow behind it, and the portable model."""
