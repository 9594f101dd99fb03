"""What `scripts/bench` runs: one module for each table that it prints.

- `calls`: what one call costs, beside plain files and another mount
- `growth`: what an append, a size and a read of the end cost in small and large journals
- `scale`: what goes over everything, in seconds and memory
"""
