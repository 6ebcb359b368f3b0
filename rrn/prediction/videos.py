"""Videos, frame by frame, by PyAV: frames to label, and overlays as a video of the same speed. Needs extra `video`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from PIL import Image

from rrn.config import SettingsError
from rrn.data.decoding import DataError, Pixels
from rrn.runtime import atomic_io

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.stream import VideoStream

NEEDED = "av is missing, which reads videos: `.venv/bin/pip install -e '.[video]' -c requirements.lock`"
CODEC: Final = "libx264"
ENDING = ".mp4"
"""Of overlays, with CODEC: what every browser plays."""
DIGITS = 6
"""Of the number of a frame in the name of its files, from 1."""
LEAST = 0.9
"""Share of the frames that a file says it has which an unbroken one shows: some files hide a few at their ends."""
TICK = Fraction(1, 90_000)
"""Seconds, of which the times of frames are multiples."""


class Frame(NamedTuple):
    """A frame: its number as files call it, the picture upright, RGB uint8 [H, W, 3], and when it is shown."""

    number: str
    picture: Pixels
    seconds: Fraction


def require_library() -> None:
    """Raise SettingsError where the extra `video` is not installed."""
    try:
        import_module("av")
    except ModuleNotFoundError as error:
        raise SettingsError(NEEDED) from error


class Video:
    """A video whose frames are decoded one at a time.

    Args:
        path: the file.

    Raises:
        SettingsError: the extra `video` is not installed.
        DataError: the file is missing, or no video.
    """

    def __init__(self, path: Path) -> None:
        require_library()
        import av

        self.path, self._error = path, av.FFmpegError
        try:
            self._file = av.open(path, metadata_errors="replace")
        except av.FFmpegError as error:
            raise DataError(f"video {path} cannot be read ({error.strerror}): it is broken, or no video") from error
        if not self._file.streams.video:
            self._file.close()
            raise DataError(f"video {path} has no pictures; remove it")
        self._stream = self._file.streams.video[0]

    @property
    def rate(self) -> Fraction:
        """Frames a second, on average."""
        return self._stream.average_rate or Fraction(25)

    @property
    def count(self) -> int | None:
        """How many frames the file says that it has; None where it does not say."""
        return self._stream.frames or None

    def frames(self) -> Iterator[Frame]:
        """Yield the frames, one at a time; close the file at the end.

        Raises:
            DataError: the file is cut off or broken, after some frames.
        """
        done = 0
        with self._file:
            try:
                for frame in self._file.decode(self._stream):
                    done += 1
                    upright = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
                    shown = None if frame.time_base is None or frame.pts is None else frame.pts * frame.time_base
                    seconds = (done - 1) / self.rate if shown is None else shown
                    yield Frame(f"{done:0{DIGITS}}", np.ascontiguousarray(upright), Fraction(seconds))
            except self._error as error:
                raise self._cut_off(done, error.strerror) from error
        if not done:
            raise DataError(f"video {self.path} has no frames; remove it")
        if self.count and done < LEAST * self.count:  # some may be left out by the file itself
            raise self._cut_off(done, f"it says that it has {self.count}")

    def _cut_off(self, done: int, reason: str | None) -> DataError:
        return DataError(
            f"video {self.path} cannot be read after frame {done} ({reason}): it is broken or incomplete; the frames "
            "before are labeled"
        )


class VideoWriter:
    """Writes pictures, one after the other, as H.264 of the size of the first.

    Args:
        file: to write to.
        path: what it is called in errors.
    """

    def __init__(self, file: OutputContainer, path: Path) -> None:
        self._file, self._path = file, path
        self._stream: VideoStream | None = None
        self._size, self._last = (0, 0), -1

    def add(self, picture: Image.Image, seconds: Fraction) -> None:
        """Append a picture; where a side is odd, its last row or column is doubled, since H.264 wants even sides.

        Args:
            picture: RGB.
            seconds: when it is shown.

        Raises:
            DataError: the encoder does not take it.
        """
        from av import VideoFrame

        pixels = np.asarray(picture if self._stream is None else picture.resize(self._size))
        pixels = np.pad(pixels, ((0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)), mode="edge")
        frame = VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.time_base = TICK
        frame.pts = self._last = max(round(seconds / TICK), self._last + 1)
        with self._explained():
            if self._stream is None:
                self._stream, self._size = self._file.add_stream(CODEC), picture.size
                self._stream.height, self._stream.width = pixels.shape[:2]
                self._stream.pix_fmt, self._stream.codec_context.time_base = "yuv420p", TICK
            self._file.mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Write what the encoder still holds."""
        if self._stream is not None:
            with self._explained():
                self._file.mux(self._stream.encode(None))

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Let a full disk through, which has an errno of its own; all else is said of the encoder."""
        import av

        try:
            yield
        except OSError:
            raise
        except (av.FFmpegError, ValueError) as error:
            size = f"{self._size[0]} x {self._size[1]} pixels"
            raise DataError(
                f"{self._path}, {size}, cannot be encoded as H.264 ({error}); leave --overlay out: labels are images"
            ) from error


@contextmanager
def write_video(path: Path) -> Iterator[VideoWriter]:
    """Open a video to write; the file appears when it is whole.

    Raises:
        WriteError: the disk is full, or the folder may not be written.
        DataError: of the encoder.
    """
    import av

    with atomic_io.atomic_path(path) as unfinished, av.open(unfinished, "w", format="mp4") as file:
        writer = VideoWriter(file, path)
        yield writer
        writer.finish()
