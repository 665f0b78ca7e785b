"""The hypervisor's file system of settings.

Public header: ``xen/hypfs.h`` (Xen 4.17).
"""

# hypfs_op: sub-operations.
XEN_HYPFS_OP_get_version = 0
XEN_HYPFS_OP_read = 1
XEN_HYPFS_OP_write_contents = 2

# Version and limits.
XEN_HYPFS_VERSION = 1
XEN_HYPFS_MAX_PATHLEN = 1024

# Types of entry.
XEN_HYPFS_TYPE_DIR = 0
XEN_HYPFS_TYPE_BLOB = 1
XEN_HYPFS_TYPE_STRING = 2
XEN_HYPFS_TYPE_UINT = 3
XEN_HYPFS_TYPE_INT = 4
XEN_HYPFS_TYPE_BOOL = 5

# Encodings of contents.
XEN_HYPFS_ENC_PLAIN = 0
XEN_HYPFS_ENC_GZIP = 1
