"""The filesystem backend: the tree of the document under a root, one plain file a conversation."""
