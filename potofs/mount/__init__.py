"""A mount's life: where it may be, the daemon that serves it, and its end."""
