"""How a job and a sweep run."""
