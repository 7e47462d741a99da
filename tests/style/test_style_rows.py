"""Prepared images come back from disk pixel by pixel, and go to tensors and back."""

import numpy as np
import torch

from condpdiff.style.rows import images, to_tensor, to_uint8
from tests.style.stand_ins_style import make_images, make_style_rows


def test_images_come_back_as_they_were() -> None:
    found = images(make_style_rows(5, 0))
    assert found.dtype == np.uint8
    assert (found == make_images(5, 0)).all()


def test_tensors_lie_between_minus_one_and_one_and_come_back() -> None:
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    tensor = to_tensor(pixels)
    assert tensor.shape == (1, 3, 16, 16)
    assert tensor.dtype == torch.float32
    assert (tensor.min(), tensor.max()) == (-1, 1)
    assert (to_uint8(tensor) == pixels).all()


def test_channels_keep_their_order() -> None:
    red = np.zeros((1, 2, 3, 3), np.uint8)
    red[..., 0] = 255
    assert (to_tensor(red)[:, 0] == 1).all()
    assert (to_tensor(red)[:, 1:] == -1).all()


def test_values_beyond_the_range_are_cut() -> None:
    assert to_uint8(torch.tensor([-3.0, 0.0, 3.0]).view(1, 3, 1, 1)).tolist() == [[[[0, 128, 255]]]]


def test_half_precision_is_taken() -> None:
    assert to_uint8(torch.ones(1, 3, 2, 2, dtype=torch.bfloat16)).tolist() == np.full((1, 2, 2, 3), 255).tolist()
