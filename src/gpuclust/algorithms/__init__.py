"""One package per clustering algorithm, and the registry that describes them."""
