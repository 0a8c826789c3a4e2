"""Which images of a folder are the frames of a video, and their order."""

import pytest

from mmaction_lite.data.sources.frame_names import in_natural_order, natural_key, select_frames
from mmaction_lite.errors import VideoError


@pytest.mark.parametrize(
    "names",
    [
        ["img_00010.jpg", "img_00009.jpg", "img_00100.jpg"],
        ["10.jpg", "9.jpg", "100.jpg"],
        ["a1_b10.jpg", "a1_b9.jpg", "a10_b1.jpg", "a9_b2.jpg"],
        ["a10b2.jpg", "a9b22.jpg"],  # as long, and alike in digits alone but for where these are
        ["x/2.png", "x/10.png"],
        [],
    ],
)
def test_names_are_in_the_order_of_their_numbers(names: list[str]) -> None:
    assert in_natural_order(names) == sorted(names, key=natural_key)


def numbered(template: str, count: int = 3) -> list[str]:
    return [template.format(number) for number in range(1, count + 1)]


RGB = numbered("img_{:05}.jpg")


@pytest.mark.parametrize(
    ("frames", "others", "counts"),
    [
        (
            RGB,
            [*numbered("flow_x_{:05}.jpg"), *numbered("flow_y_{:05}.jpg")],
            {"flow_x_*.jpg": 3, "flow_y_*.jpg": 3},
        ),
        (numbered("image_{}.png"), numbered("depth_{}.png"), {"depth_*.png": 3}),
        (numbered("{:06}.jpg"), numbered("{:06}_mask.png"), {"*_mask.png": 3}),
        (numbered("rgb_frame{}.jpg"), numbered("frame{}_left.jpg"), {"frame*_left.jpg": 3}),
        (numbered("IMG_{}.JPG"), numbered("Flow_X_{}.JPG"), {"flow_x_*.jpg": 3}),
        # The only kind that has none of the known words.
        (numbered("v_Archery_g01_c01_{:04}.jpg"), numbered("flow_x_{:04}.jpg"), {"flow_x_*.jpg": 3}),
        (
            numbered("frame{:06}.jpg"),
            ["thumb.jpg", "cover.png"],
            {"without a number (thumb.jpg, cover.png)": 2},
        ),
        (["img_1.jpg"], ["flow_x_1.jpg", "flow_y_1.jpg"], {"flow_x_*.jpg": 1, "flow_y_*.jpg": 1}),
        (numbered("clip/rgb/{}.jpg"), numbered("clip/flow/{}.jpg"), {"flow/*.jpg": 3}),
        (numbered("left_{}.jpg"), [], {}),
        (numbered("flow_x_{}.jpg"), [], {}),
        (["a.jpg", "b.png"], [], {}),
        (numbered("img_{}.jpg", 12), [], {}),
        (["img_1.jpg", "img_2.png", "img_10.jpeg"], [], {}),
        (["IMG_1.JPG", "img_2.jpg", "IMG_3.JPG"], [], {}),
        ([f"2024-01-01_10-{minute}-{second}.jpg" for minute in "01" for second in (10, 20, 30)], [], {}),
        (["frame_1_0.5s.jpg", "frame_2_1s.jpg", "frame_10_4.5s.jpg"], [], {}),
        (["g01_c02_1.jpg", "g01_c02_2.jpg"], [], {}),
        (["1.jpg", f"{'9' * 5000}.jpg", f"1{'0' * 5000}.jpg"], [], {}),
        (["٢.jpg", "٣.jpg", "١٠.jpg"], [], {}),  # digits of another script
    ],
)
def test_frames_are_chosen_among_images_of_several_kinds(frames, others, counts) -> None:
    selection = select_frames([*others, *reversed(frames)], "clip")
    assert selection.names == frames
    assert selection.others == counts


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ([*numbered("left_{}.jpg"), *numbered("right_{}.jpg", 4)], "4 right_*.jpg, 3 left_*.jpg"),
        ([*numbered("img_{}.jpg"), *numbered("frame_{}.jpg")], "3 frame_*.jpg, 3 img_*.jpg"),
        ([*numbered("flow_x_{}.jpg"), *numbered("flow_y_{}.jpg")], "3 flow_x_*.jpg, 3 flow_y_*.jpg"),
        ([*numbered("{}_left.jpg"), *numbered("{}_right.jpg")], "3 *_left.jpg, 3 *_right.jpg"),
        ([*numbered("cam0_{:04}.jpg"), *numbered("cam1_{:04}.jpg")], "3 cam0_*.jpg, 3 cam1_*.jpg"),
        ([*numbered("cam1/{:04}.jpg"), *numbered("cam2/{:04}.jpg")], "3 cam1/*.jpg, 3 cam2/*.jpg"),
        ([*numbered("a/{}.jpg"), *numbered("b/{}.png")], "3 a/*.jpg, 3 b/*.png"),
    ],
)
def test_ambiguous_kinds_are_an_error_with_counts(names, found) -> None:
    with pytest.raises(VideoError) as caught:
        select_frames(names, "clip")
    kind = found.split()[1].removesuffix(",")
    assert str(caught.value) == (
        f"clip: contains several kinds of images: {found}; expected the frames of one video. "
        f"Append the pattern of the frames to the path: clip/{kind}"
    )
    chosen = select_frames(names, "clip", kind).names
    assert chosen
    assert chosen == in_natural_order(chosen)
    assert len(chosen) == int(found.split()[0])
    assert len(select_frames(names, "clip", "*").names) == len(names)


@pytest.mark.parametrize(
    "names",
    [
        ["img_1.jpg", "img_1.png", "img_2.jpg"],
        ["1.jpg", "01.jpg"],
        ["img_1.jpg", "IMG_1.JPG"],
        [f"{'0' * 4400}1.jpg", "1.jpg"],
    ],
)
def test_two_images_of_one_frame_are_an_error(names) -> None:
    with pytest.raises(
        VideoError, match=r"^clip: \S+ and \S+ have the same frame number; expected one image"
    ):
        select_frames(names, "clip")


def test_a_pattern_chooses_one_of_two_formats() -> None:
    names = [*numbered("{}.jpg"), *numbered("{}.png")]
    assert select_frames(names, "clip", "*.png").names == numbered("{}.png")
    with pytest.raises(VideoError, match=r"^clip: contains no image that matches 'x_\*\.jpg'$"):
        select_frames(names, "clip", "x_*.jpg")


def test_names_without_a_structure_are_all_frames() -> None:
    names = [f"{number * 2654435761 % 2**32:08x}.jpg" for number in range(1, 60)]
    assert sorted(select_frames(names, "clip").names) == sorted(names)


def test_missing_numbers_are_noted() -> None:
    names = numbered("img_{:05}.jpg", 9)
    assert select_frames(names, "clip").note == ""
    del names[4:6]
    assert select_frames(names, "clip").note == "2 of the frame numbers 1 to 9 are missing, the first is 5"
    assert select_frames(numbered("{}0.jpg"), "clip").note == ""  # every tenth frame was kept
    assert select_frames([*names, "flow_x_1.jpg"], "clip").note == (
        "contains other images, which are not read: 1 flow_x_*.jpg; "
        "2 of the frame numbers 1 to 9 are missing, the first is 5"
    )
