"""The two halves of a K-means iteration against a twin of loops, and what happens to codes that nobody uses."""

import pytest
import torch
from compgs_twin import means_of_members, nearest

from effbook.compgs import kmeans
from effbook.errors import EffbookError


def values(n=60, width=3, seed=0):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("width", [3, 4, 45])
def test_assignment_is_the_twins_by_faiss_and_in_blocks(width):
    points, codes = values(60, width), values(9, width, seed=1)
    wanted = nearest(points, codes)
    assert kmeans.assign(points, codes).tolist() == wanted
    for block in (1, 7 * 9 * 4, 10**9):  # a row, seven rows and all rows at once
        assert kmeans.assign_in_blocks(points, codes, block_bytes=block).tolist() == wanted


def test_centres_are_the_means_of_their_members():
    points, codes = values(), values(9, seed=1)
    indices = torch.tensor(nearest(points, codes))
    indices[indices == 4] = 5  # so that code 4 is empty
    found = kmeans.centres(points, indices, codes)
    torch.testing.assert_close(found.double(), torch.from_numpy(means_of_members(points, indices.tolist(), codes)))
    assert torch.equal(found[4], codes[4])


def test_an_empty_code_takes_the_value_that_fits_worst():
    points = torch.tensor([[0.0], [0.1], [5.0], [9.0]])
    codes, indices = torch.tensor([[0.0], [7.0], [99.0]]), torch.tensor([0, 0, 1, 1])
    points[3] = 9.5
    codes, indices = kmeans.reseed(points, codes, indices)
    assert codes[2].tolist() == [9.5]
    assert indices.tolist() == [0, 0, 1, 2]


def test_codes_stay_empty_where_there_are_fewer_different_values():
    points = torch.tensor([[1.0], [1.0], [2.0]])
    codes, indices = kmeans.reseed(points, torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([0, 0, 1]))
    assert codes.tolist() == [[1.0], [2.0], [3.0]]
    assert indices.tolist() == [0, 0, 1]


def test_as_many_codes_as_values_lose_nothing():
    points = values(40)
    codes, indices = kmeans.cluster(points, 40, iterations=3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(codes[indices], points)


def test_clustering_lowers_the_error_from_round_to_round():
    points, errors = values(400), []
    for rounds in (0, 2, 10):
        codes, indices = kmeans.cluster(points, 16, iterations=rounds, generator=torch.Generator().manual_seed(2))
        errors.append(float((points - codes[indices]).square().sum()))
    assert errors[0] > errors[1] > errors[2]


def test_more_codes_than_gaussians_are_refused():
    with pytest.raises(EffbookError, match="larger than the 60 Gaussians"):
        kmeans.first_codes(values(), 61, torch.Generator())


@pytest.mark.parametrize("offset", [0.0, 100.0, -3000.0])
@pytest.mark.parametrize("width", [3, 45])  # faiss reckons by differences for few values and by products for many
@pytest.mark.parametrize("way", [kmeans.assign, kmeans.assign_in_blocks])
def test_assignment_is_as_sharp_far_from_the_origin(way, width, offset):
    points, codes = values(3000, width) + offset, values(700, width, seed=1) + offset
    wanted = torch.cdist(points.double(), codes.double(), compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
    assert int((way(points, codes) != wanted).sum()) <= 1
