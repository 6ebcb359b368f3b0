"""A small disk that tests may fill and make read-only."""

import subprocess
from contextlib import contextmanager

import pytest


def mounted(*arguments):
    """Run mount; return whether it worked, which takes root."""
    return subprocess.run(["mount", *map(str, arguments)], capture_output=True, check=False).returncode == 0


class Disk:
    """A disk in memory, mounted at `folder`."""

    def __init__(self, folder):
        self.folder = folder

    def fill(self, free):
        """Leave so many bytes free."""
        with (self.folder / "filling").open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                file.truncate(file.tell() - free)

    def empty(self):
        """Make room again."""
        (self.folder / "filling").unlink()

    def set_writable(self, writable):
        """Let it be written, or not."""
        assert mounted("-o", f"remount,{'rw' if writable else 'ro'}", self.folder)


@contextmanager
def small_disk(folder):
    """Give a disk of 256 KiB at `folder`, which is made; skip the test where none can be mounted."""
    folder.mkdir()
    if not mounted("-t", "tmpfs", "-o", "size=256k", "tmpfs", folder):
        pytest.skip("only root may mount a disk")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
