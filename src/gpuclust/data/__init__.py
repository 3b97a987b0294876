"""Tables: reading, cleaning, and the built-in catalogue."""
