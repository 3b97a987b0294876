"""What every page and figure shares: colours, safe text, numbers as text, pictures of points, and HTML."""
