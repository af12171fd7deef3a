"""The other side of faults.c: a server under its control, and what a disk holds after a power loss."""
import ctypes
import importlib.util
import mmap
import pathlib
import random
import struct

HERE = pathlib.Path(__file__).resolve().parent
_spec = importlib.util.spec_from_file_location("http_harness", HERE.parent / "http/conftest.py")
harness = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(harness)

LIBRARY = harness.BIN.parent / "tests" / "libfaults.so"
WRITE, TRUNCATE, SYNC = 1, 2, 4
MEMBERS = ("io_countdown", "io_sticky", "io_errno", "io_kinds", "io_failed", "hold", "held", "journal",
           "alloc_countdown", "alloc_failed")


class Control:
    """The shared page, a member an attribute."""

    def __init__(self, path):
        size = 8 * len(MEMBERS)
        path.write_bytes(bytes(size))
        with open(path, "r+b") as file:
            object.__setattr__(self, "page", mmap.mmap(file.fileno(), size))
        numbers = (ctypes.c_int64 * len(MEMBERS)).from_buffer(self.page)
        object.__setattr__(self, "numbers", numbers)

    def __getattr__(self, name):
        return self.numbers[MEMBERS.index(name)]

    def __setattr__(self, name, value):
        self.numbers[MEMBERS.index(name)] = value

    def fail_io(self, n, code, kinds=WRITE | TRUNCATE | SYNC, sticky=False):
        """The n-th call of these kinds from now on fails with `code`."""
        self.io_countdown, self.io_failed = 0, 0
        self.io_errno, self.io_kinds, self.io_sticky = code, kinds, int(sticky)
        self.io_countdown = n

    def fail_allocation(self, n):
        self.alloc_failed = 0
        self.alloc_countdown = n

    def calm(self):
        self.io_countdown = self.alloc_countdown = self.hold = 0


class FaultyServer(harness.Server):
    """A server with faults.c between it and the C library."""

    def __init__(self, directory, **settings):
        directory = pathlib.Path(directory)
        self.journal = directory / "journal"
        self.journal.mkdir()
        self.control = Control(directory / "control")
        self.environment = {"LD_PRELOAD": str(LIBRARY), "FAULTS_CONTROL": str(directory / "control"),
                            "FAULTS_DIR": str(directory / "db"), "FAULTS_JOURNAL": str(self.journal)}
        super().__init__(directory, **settings)


def blocks(record, rng):
    """Pieces of a write that was not synced, some of which reach the disk."""
    at, data = record
    for i in range(0, len(data), 512):
        if rng.random() < 0.5:
            yield at + i, data[i:i + 512]


class Image:
    """A file as the disk would have it."""

    def __init__(self, content):
        self.data = bytearray(content)

    def write(self, at, data):
        if at > len(self.data):
            self.data.extend(bytes(at - len(self.data)))
        self.data[at:at + len(data)] = data

    def truncate(self, size):
        del self.data[size:]
        self.data.extend(bytes(size - len(self.data)))


def read_journal(path):
    """(kind, offset or size, data) of every record that is whole."""
    raw, at = path.read_bytes(), 0
    while at + 24 <= len(raw):
        kind, offset, size = struct.unpack_from("<qqq", raw, at)
        at += 24
        if at + size > len(raw):
            return
        yield kind, offset, raw[at:at + size]
        at += size


def lose_power(database, journal, before, seed):
    """Rewrites the files of `database` to what was synced, and of what was not some blocks in no order.
    `before`: their content when the journal began."""
    rng = random.Random(seed)
    lost = 0
    for log in sorted(journal.iterdir()):
        image, waiting = Image(before.get(log.name, b"")), []
        for kind, offset, data in read_journal(log):
            if kind == SYNC:
                for record in waiting:
                    image.truncate(record[0]) if record[1] is None else image.write(*record)
                waiting = []
            else:
                waiting.append((offset, None if kind == TRUNCATE else data))
        for record in waiting:
            lost += 1
            if record[1] is None:
                if rng.random() < 0.5:
                    image.truncate(record[0])
                continue
            for piece in blocks(record, rng):
                image.write(*piece)
        target = database.parent / log.name
        if target.exists():
            target.write_bytes(bytes(image.data))
        log.unlink()
    shared = pathlib.Path(str(database) + "-shm")
    shared.unlink(missing_ok=True)
    return lost


def contents(database):
    """What the files are now, for lose_power later."""
    return {path.name: path.read_bytes() for path in database.parent.iterdir()
            if not path.name.endswith(("-shm", "-lock"))}
