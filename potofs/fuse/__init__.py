"""The kernel's side: requests, inode numbers, handles, errno values, and which thread does what."""
