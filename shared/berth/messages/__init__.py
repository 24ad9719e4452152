"""What crosses a process boundary: declared here, and nowhere else."""
