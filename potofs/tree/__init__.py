"""What the mount looks like, and what may be done to it; tested without a kernel."""
