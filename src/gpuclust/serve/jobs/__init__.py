"""The job service: an HTTP API that takes jobs, runs them one after another as processes, and keeps their states."""
