"""Internal indices of a clustering, and how stable it is."""
