"""Hard use for as long as one likes: `scripts/soak SCENARIO`, and a few seconds of the same in the tests beside it.

Each scenario is one module with one function that makes a report: figures, and whatever was not as it should be.
"""
