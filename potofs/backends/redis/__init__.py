"""Conversations in Redis: one server, what Sentinel says is the master, or a cluster."""
