"""An initial ramdisk made of one static busybox: a small Linux user space to boot guests into.

The archive is a newc cpio (Linux: Documentation/driver-api/early-userspace/buffer-format.rst), written here
so that neither root nor a cpio program is needed. The same input gives the same bytes: files have no time
of their own, everything belongs to root, and inode numbers count up from 1.
"""

from __future__ import annotations

import gzip
import hashlib
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from paravirt.errors import UserError
from paravirt.guestkernels.cache import Cache

MARKER = "paravirt: init"
"""The first line that /init prints; the kernel's own start is over then."""

INIT = f"""#!/bin/busybox sh
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox echo '{MARKER}'
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox --install -s
mkdir -p /dev/pts
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /tmp
[ "$(hostname)" != '(none)' ] || hostname guest
if [ -e /etc/modules ]; then
    while read -r module; do insmod "$module"; done < /etc/modules
fi
# With root= on the command line, that disk's file system takes over; /init is in the way of the kernel's own look.
for word in $(cat /proc/cmdline); do
    case "$word" in root=/dev/*) disk="${{word#root=}}" ;; esac
done
if [ -n "$disk" ]; then
    while [ ! -b "$disk" ]; do sleep 0.1; done
    mkdir /disk
    mount "$disk" /disk
    for folder in dev proc sys; do mount --move /$folder /disk/$folder; done
    exec switch_root /disk /sbin/init
fi
exec init
"""

DHCP_SCRIPT = "etc/udhcpc/default.script"
"""Where Debian's udhcpc looks for what it is to do with a lease."""

# It is called at udhcpc's start too ("deconfig"). The router may be on no network of the address's.
DHCP = """#!/bin/busybox sh
case "$1" in
deconfig)
    ip addr flush dev "$interface"
    ip link set "$interface" up
    ;;
bound | renew)
    ifconfig "$interface" "$ip" netmask "${subnet:-255.255.255.0}"
    for gateway in $router; do
        ip route replace default via "$gateway" dev "$interface" 2>/dev/null || {
            ip route replace "$gateway" dev "$interface"
            ip route replace default via "$gateway" dev "$interface"
        }
    done
    { [ -z "$domain" ] || echo "search $domain"; for server in $dns; do echo "nameserver $server"; done; } \
        > /etc/resolv.conf
    ;;
esac
"""

# busybox's init is process 1, so that `poweroff`, `reboot` and `halt`, which are signals to it, work from
# anywhere. It takes two seconds over them; a person at the prompt gets the direct way by a shell function.
# The kernel's command line hands on every NAME=value that the kernel does not know: LINES, COLUMNS, TERM.
_SYSTEM = {
    "etc/inittab": "::respawn:/etc/session\n",
    "etc/session": """#!/bin/busybox sh
cd /root
export ENV=/etc/shellrc HOME=/root
setsid cttyhack sh -c '
    if [ -n "$LINES" ] && [ -n "$COLUMNS" ]; then
        stty rows "$LINES" cols "$COLUMNS"
    fi
    unset LINES COLUMNS
    exec sh
'
poweroff -f
""",
    DHCP_SCRIPT: DHCP,
    "etc/shellrc": "".join(f'{name}() {{ command {name} -f "$@"; }}\n' for name in ("halt", "poweroff",
    "reboot")),
}

_FOLDERS = ("bin", "dev", "etc", "proc", "root", "sbin", "sys", "tmp", "usr", "usr/bin", "usr/sbin", "var")


class Cpio:
    """A newc cpio archive that grows entry by entry."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._folders: set[str] = set()
        self._inode = 0

    def folder(self, name: str, mode: int = 0o755) -> None:
        """Add a directory, and its parents first; one that is there already stays as it is."""
        parent = str(PurePosixPath(name).parent)
        if parent != ".":
            self.folder(parent)
        if name not in self._folders:
            self._folders.add(name)
            self._entry(name, stat.S_IFDIR | mode, b"", links=2)

    def file(self, name: str, data: bytes, mode: int = 0o644) -> None:
        """Add a regular file, and the directories above it."""
        parent = str(PurePosixPath(name).parent)
        if parent != ".":
            self.folder(parent)
        self._entry(name, stat.S_IFREG | mode, data)

    def device(self, name: str, major: int, minor: int, mode: int = 0o600) -> None:
        """Add a character device node."""
        self._entry(name, stat.S_IFCHR | mode, b"", device=(major, minor))

    def finish(self) -> bytes:
        """The whole archive, with the entry that ends it."""
        self._inode = -1
        self._entry("TRAILER!!!", 0, b"")
        self._data += bytes(-len(self._data) % 512)
        return bytes(self._data)

    def _entry(
        self, name: str, mode: int, data: bytes, links: int = 1, device: tuple[int, int] = (0, 0)
    ) -> None:
        self._inode += 1
        encoded = name.encode() + b"\0"
        # ino, mode, uid, gid, nlink, mtime, filesize, dev major/minor, rdev major/minor, namesize, check
        fields = (self._inode, mode, 0, 0, links, 0, len(data), 0, 0, *device, len(encoded), 0)
        self._data += b"070701" + b"".join(b"%08X" % value for value in fields) + encoded
        self._data += bytes(-len(self._data) % 4)
        self._data += data
        self._data += bytes(-len(self._data) % 4)


def build(
    busybox: Path, extra: Mapping[str, Path | bytes] | None = None, init: str = INIT, compress: bool = False
) -> bytes:
    """The initial ramdisk, as bytes.

    ``extra`` maps paths in the guest (without a leading slash) to files of the host, or to their content; a
    file keeps its execute permission, content is executable. ``init`` is the text of /init. With ``compress``
    the result is gzip data.

    Raises:
        UserError: a file cannot be read, or a path in the guest is not below its root.
    """
    archive = Cpio()
    for name in _FOLDERS:
        archive.folder(name, 0o1777 if name == "tmp" else 0o755)
    archive.device("dev/console", 5, 1)
    archive.device("dev/null", 1, 3, 0o666)
    archive.file("bin/busybox", _read(busybox), 0o755)
    archive.file("init", init.encode(), 0o755)
    for name, text in _SYSTEM.items():
        archive.file(name, text.encode(), 0o755)
    for name, source in sorted((extra or {}).items()):
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.name:
            raise UserError(f"A file in the ramdisk needs a path below the guest's root, not {name!r}.")
        if isinstance(source, bytes):
            archive.file(str(path), source, 0o755)
        else:
            data = _read(source)
            archive.file(str(path), data, 0o755 if source.stat().st_mode & 0o111 else 0o644)
    data = archive.finish()
    return gzip.compress(data, 6, mtime=0) if compress else data


def cached(busybox: Path, cache: Cache | None = None) -> Path:
    """The path of the plain initial ramdisk around ``busybox``, built when it is not in the cache yet.

    Raises:
        UserError: busybox cannot be read, or the cache cannot be written.
    """
    data = build(busybox)
    name = f"ramdisks/{hashlib.sha256(data).hexdigest()[:16]}"

    def fill(folder: Path) -> None:
        (folder / "initramfs.cpio").write_bytes(data)

    return (cache or Cache()).make(name, fill) / "initramfs.cpio"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"The file {path} cannot be read ({error.strerror or error}).") from error
