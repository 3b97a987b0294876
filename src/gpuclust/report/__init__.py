"""What people look at: figures, the pages of jobs and sweeps, and the terminal."""
