"""What a command that is not done tells whoever started it, by its exit code.

0 is done, and 2 a command line that is wrong, as everywhere.
"""

#: Refused or impossible, for a reason in one line on standard error.
FAILED = 1
#: fsck: everything that was wrong is mended.
REPAIRED = 3
#: fsck: something is wrong.
DAMAGED = 4
#: The same where mount(8) has called, which knows 1 as a mistake in how it was called.
MOUNT_FAILED = 32
#: Ended by Ctrl-C.
INTERRUPTED = 130
