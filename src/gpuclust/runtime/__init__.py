"""Where and how computations run: backends, compilation, cache."""
