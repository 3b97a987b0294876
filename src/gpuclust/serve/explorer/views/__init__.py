"""The pages, one function per file."""
