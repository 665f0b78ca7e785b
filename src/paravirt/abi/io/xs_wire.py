"""The wire protocol of xenstore.

Public header: ``xen/io/xs_wire.h`` (Xen 4.17).
"""

from collections.abc import Mapping
from ctypes import LittleEndianStructure, c_uint8, c_uint32
from typing import Final

from .. import errno

# XsdSockmsg.type.
XS_CONTROL = 0
XS_DEBUG = XS_CONTROL
XS_DIRECTORY = 1
XS_READ = 2
XS_GET_PERMS = 3
XS_WATCH = 4
XS_UNWATCH = 5
XS_TRANSACTION_START = 6
XS_TRANSACTION_END = 7
XS_INTRODUCE = 8
XS_RELEASE = 9
XS_GET_DOMAIN_PATH = 10
XS_WRITE = 11
XS_MKDIR = 12
XS_RM = 13
XS_SET_PERMS = 14
XS_WATCH_EVENT = 15
XS_ERROR = 16
XS_IS_DOMAIN_INTRODUCED = 17
XS_RESUME = 18
XS_SET_TARGET = 19
XS_RESET_WATCHES = 21
XS_DIRECTORY_PART = 22

# Payloads of XS_WRITE in old clients: how the node may come into being.
XS_WRITE_NONE = "NONE"
XS_WRITE_CREATE = "CREATE"
XS_WRITE_CREATE_EXCL = "CREATE|EXCL"

# One more than the last type, and a type that will never be one.
XS_TYPE_COUNT = 23
XS_INVALID = 0xFFFF

# Strings in a watch event: their order.
XS_WATCH_PATH = 0
XS_WATCH_TOKEN = 1

# Each of the two rings, in bytes.
XENSTORE_RING_SIZE = 1024

# Limits, in bytes: a message's payload, an absolute and a relative path.
XENSTORE_PAYLOAD_MAX = 4096
XENSTORE_ABS_PATH_MAX = 3072
XENSTORE_REL_PATH_MAX = 2048

# XenstoreDomainInterface.server_features.
XENSTORE_SERVER_FEATURE_RECONNECTION = 1
XENSTORE_SERVER_FEATURE_ERROR = 2

# XenstoreDomainInterface.connection.
XENSTORE_CONNECTED = 0
XENSTORE_RECONNECT = 1

# XenstoreDomainInterface.error.
XENSTORE_ERROR_NONE = 0
XENSTORE_ERROR_COMM = 1
XENSTORE_ERROR_RINGIDX = 2
XENSTORE_ERROR_PROTO = 3

#: Errors travel by name: the payload of an XS_ERROR message is one of these strings and a NUL.
XSD_ERRORS: Final[Mapping[str, int]] = {
    name: getattr(errno, name)
    for name in (
        "EINVAL",
        "EACCES",
        "EEXIST",
        "EISDIR",
        "ENOENT",
        "ENOMEM",
        "ENOSPC",
        "EIO",
        "ENOTEMPTY",
        "ENOSYS",
        "EROFS",
        "EBUSY",
        "EAGAIN",
        "EISCONN",
        "E2BIG",
        "EPERM",
    )
}


class XsdSockmsg(LittleEndianStructure):
    """Header of every message, followed by `len` bytes."""

    _fields_ = [
        ("type", c_uint32),
        ("req_id", c_uint32),
        ("tx_id", c_uint32),
        ("len", c_uint32),
    ]


class XenstoreDomainInterface(LittleEndianStructure):
    """The xenstore page; the indices run free and are taken modulo XENSTORE_RING_SIZE."""

    _fields_ = [
        ("req", c_uint8 * XENSTORE_RING_SIZE),
        ("rsp", c_uint8 * XENSTORE_RING_SIZE),
        ("req_cons", c_uint32),
        ("req_prod", c_uint32),
        ("rsp_cons", c_uint32),
        ("rsp_prod", c_uint32),
        ("server_features", c_uint32),
        ("connection", c_uint32),
        ("error", c_uint32),
    ]
