"""Videos are labeled frame by frame, and their overlays are videos."""

import re
import struct
import sys
from fractions import Fraction

import av
import numpy as np
import pandas as pd
import pytest
from photos import finished_runs, save_photo
from PIL import Image

from rrn.data.decoding import DataError
from rrn.prediction import command, videos
from rrn.runtime.atomic_io import WriteError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return finished_runs(tmp_path_factory.mktemp("videos") / "repository", ["rrn"]) / "rrn"


def pictures(count=5, height=38, width=50):
    """Return pictures of which each is brighter than the one before."""
    return [np.full((height, width, 3), 30 * number + 20, np.uint8) for number in range(count)]


def film(path, frames, codec="libx264", rate=10, times=None, title=None):
    """Write a video; `times`: when each frame is shown, in seconds, in place of a rate."""
    with av.open(path, "w") as file:
        if title:
            file.metadata["title"] = title
        stream = file.add_stream(codec, rate=rate, options={"g": "1"})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times:
                frame.pts, frame.time_base = round(1000 * times[number]), Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def shown(path):
    """Return the brightness of each frame of a video, and when it is shown."""
    with av.open(path) as file:
        frames = [(frame.to_ndarray(format="rgb24").mean(), frame.time) for frame in file.decode(video=0)]
    return [np.array(values) for values in zip(*frames, strict=True)]


def turned(path):
    """Let a player turn an MP4 by a quarter, clockwise, as telephones do that are held upright."""
    contents = path.read_bytes()
    matrix = contents.index(b"tkhd") + 4 + 40
    assert struct.unpack(">9i", contents[matrix : matrix + 36]) == (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    quarter = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    path.write_bytes(contents[:matrix] + quarter + contents[matrix + 36 :])
    return path


def label(*arguments):
    return command.main([str(argument) for argument in arguments])


def files_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(("name", "codec"), [("clip.mp4", "libx264"), ("clip.MKV", "libx264"), ("clip.avi", "mpeg4")])
def test_each_frame_is_labeled_as_its_picture(run, tmp_path, capsys, name, codec):
    path = film(tmp_path / name.lower(), pictures(), codec).rename(tmp_path / name)
    assert label(run, path, tmp_path / "out", "--overlay", "--regions", "--probabilities") == 0
    said = capsys.readouterr()
    assert said.out == f"1 of 1 files labeled: {tmp_path}/out/labels\n" and "clip: " in said.err
    numbers = [f"{number:06}" for number in range(1, 6)]
    assert files_in(tmp_path / "out/labels") == [f"clip/{number}.png" for number in numbers]
    assert files_in(tmp_path / "out/overlays") == ["clip.mp4"]
    assert set(pd.read_csv(tmp_path / "out/regions.csv")["image"]) == {f"clip/{number}" for number in numbers}
    for frame in videos.Video(path).frames():
        (tmp_path / "frames").mkdir(exist_ok=True)
        Image.fromarray(frame.picture).save(tmp_path / "frames" / f"{frame.number}.png")
    assert label(run, tmp_path / "frames", tmp_path / "single", "--probabilities", "--regions") == 0
    for kind in ("labels", "probabilities", "regions"):
        first, second = tmp_path / "out" / kind / "clip", tmp_path / "single" / kind
        assert files_in(first) == files_in(second) and len(files_in(first)) == 5
        assert all((first / name).read_bytes() == (second / name).read_bytes() for name in files_in(first))


@pytest.mark.parametrize("times", [None, [0, 0.04, 0.08, 0.5, 2, 2.04, 5]])
def test_an_overlay_has_the_times_the_frames_and_the_size(run, tmp_path, times):
    path = film(tmp_path / "clip.mp4", pictures(7), rate=24, times=times)
    save_photo(tmp_path / "still.png", 39, 51)
    assert label(run, path, tmp_path / "still.png", tmp_path / "out", "--overlay") == 0
    with av.open(tmp_path / "out/overlays/clip.mp4") as file:
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 50, 38)
    brightness, seconds = shown(tmp_path / "out/overlays/clip.mp4")
    before, expected = shown(path)
    np.testing.assert_allclose(seconds, expected, atol=1e-3)
    assert np.all(np.diff(brightness) > 5) and np.all(np.diff(brightness) < 0.7 * np.diff(before)), "half is colors"
    assert files_in(tmp_path / "out/overlays") == ["clip.mp4", "still.png"]


def test_odd_sides_are_made_even_and_frames_of_another_size_fit(tmp_path):
    with videos.write_video(tmp_path / "deep/out.mp4") as writer:
        for number, size in enumerate([(33, 21), (33, 21), (66, 42)]):
            writer.add(Image.new("RGB", size, (200, 10, 10)), Fraction(number, 25))
    found = [frame.picture.shape for frame in videos.Video(tmp_path / "deep/out.mp4").frames()]
    assert found == 3 * [(22, 34, 3)]


def test_what_the_encoder_does_not_take_is_said_and_a_full_disk_is_no_encoder(tmp_path):
    with (
        pytest.raises(DataError, match=r"wide\.mp4, 16400 x 2 pixels, cannot be encoded as H\.264 .* --overlay out"),
        videos.write_video(tmp_path / "wide.mp4") as writer,
    ):
        writer.add(Image.new("RGB", (16_400, 2)), Fraction(0))
    assert not files_in(tmp_path)
    with pytest.raises(WriteError, match="No space left"), videos.write_video(tmp_path / "x.mp4"):
        raise OSError(28, "No space left on device")


def test_a_video_of_an_upright_telephone_is_turned(tmp_path):
    frame = np.zeros((32, 64, 3), np.uint8)
    frame[:, :32] = 255  # the left half is white, which is the upper one when it is turned clockwise
    path = turned(film(tmp_path / "clip.mp4", [frame] * 3))
    upright = next(videos.Video(path).frames()).picture
    assert upright.shape == (64, 32, 3) and upright[:28].min() > 200 and upright[36:].max() < 50


@pytest.mark.parametrize(("name", "codec"), [("clip.mkv", "libx264"), ("clip.avi", "mpeg4")])
def test_of_a_video_that_is_cut_off_the_frames_that_are_there_are_kept(run, tmp_path, capsys, name, codec):
    noise = np.random.default_rng(0).integers(0, 256, (30, 64, 64, 3), dtype=np.uint8)
    path = film(tmp_path / name, list(noise), codec)
    contents = path.read_bytes()
    path.write_bytes(contents[: len(contents) // 2])
    photo = save_photo(tmp_path / "a.png")
    status = label(run, path, photo, tmp_path / "out", "--overlay")
    labeled = files_in(tmp_path / "out/labels")
    assert "a.png" in labeled and 5 < len(labeled) < 31
    assert len(shown(tmp_path / "out/overlays/clip.mp4")[0]) == len(labeled) - 1
    if videos.Video(path).count:  # a Matroska says nothing of how many there should be
        assert status == 1
        said = capsys.readouterr().err
        assert re.search(rf"clip\.\w+ cannot be read after frame {len(labeled) - 1} \(.*\): it is broken or", said)


def test_a_decoder_that_fails_on_the_way_is_told_with_what_is_kept(run, tmp_path, monkeypatch, capsys):
    path, whole = film(tmp_path / "clip.mp4", pictures()), videos.Video.frames

    def broken(self):
        yield from list(whole(self))[:3]
        raise DataError("video cannot be read after frame 3")

    monkeypatch.setattr(videos.Video, "frames", broken)
    assert label(run, path, tmp_path / "out", "--overlay") == 1
    assert "error: video cannot be read after frame 3\n" in capsys.readouterr().err
    assert len(files_in(tmp_path / "out/labels")) == 3
    monkeypatch.undo()
    assert len(shown(tmp_path / "out/overlays/clip.mp4")[0]) == 3


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.avi"])
def test_a_title_in_another_encoding_is_no_reason_to_stop(tmp_path, name):
    path = film(tmp_path / name, pictures(), "mpeg4" if name.endswith("avi") else "libx264", title="Caf*")
    path.write_bytes(path.read_bytes().replace(b"Caf*", "Caf\xe9".encode("latin-1")))
    assert b"Caf\xe9" in path.read_bytes() and len(list(videos.Video(path).frames())) == 5


def test_what_is_no_video_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"gone\.mp4 cannot be read \(No such file or directory\)"):
        videos.Video(tmp_path / "gone.mp4")
    (tmp_path / "text.mp4").write_text("text")
    with pytest.raises(DataError, match=r"text\.mp4 cannot be read \(Invalid data.*\): it is broken, or no video"):
        videos.Video(tmp_path / "text.mp4")
    with av.open(tmp_path / "sound.mp4", "w") as file:
        stream = file.add_stream("aac", rate=44100, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 44100
        file.mux(stream.encode(silence))
        file.mux(stream.encode(None))
    with pytest.raises(DataError, match=r"sound\.mp4 has no pictures; remove it"):
        videos.Video(tmp_path / "sound.mp4")


def test_a_missing_library_is_named_before_anything_is_labeled(run, tmp_path, monkeypatch, capsys):
    save_photo(tmp_path / "in/a.png")
    (tmp_path / "in/b.mov").touch()
    monkeypatch.setitem(sys.modules, "av", None)
    assert label(run, tmp_path / "in", tmp_path / "out") == 1
    assert re.search(r"av is missing.*pip install -e '\.\[video\]' -c requirements\.lock", capsys.readouterr().err)
    assert not (tmp_path / "out").exists()
    assert label(run, tmp_path / "in/a.png", tmp_path / "out") == 0
