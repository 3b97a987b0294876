"""Tables: reading, cleaning, joining, and the audit of what was done."""
