"""Packed tokens: the inverse of packing, and attention that knows where an image ends."""

import pytest
import torch

from effbook.adaptive import packing


def ragged(*, images=4, tokens=7, seed=0):
    draw = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(images, tokens, 2, 4, generator=draw, dtype=torch.float64) for _ in range(3))
    return q, k, v, torch.rand(images, tokens, generator=draw) > 0.4


def one_by_one(q, k, v, keys, queries):
    """Softmax by hand for each image, head and query."""
    rows = []
    for b in range(len(q)):
        for i in queries[b].nonzero()[:, 0]:
            heads = []
            for h in range(q.shape[2]):
                alive = keys[b].nonzero()[:, 0].tolist()
                weight = torch.stack([(q[b, i, h] * k[b, j, h]).sum() / q.shape[3] ** 0.5 for j in alive]).exp()
                heads.append(sum(w * v[b, j, h] for w, j in zip(weight / weight.sum(), alive, strict=True)))
            rows.append(torch.stack(heads))
    return torch.stack(rows)


def test_unpacking_undoes_packing():
    q, *_, alive = ragged()
    packed, counts = packing.pack(q, alive)
    assert counts.tolist() == alive.sum(1).tolist()
    assert torch.equal(packing.unpack(packed, alive), q * alive[:, :, None, None])


def test_packed_and_masked_attention_are_attention_image_by_image():
    q, k, v, alive = ragged()
    assert len(set(alive.sum(1).tolist())) > 1
    expected = one_by_one(q, k, v, alive, alive)
    packed = packing.packed_attention(q[alive], k[alive], v[alive], alive.sum(1))
    torch.testing.assert_close(packed, expected)
    torch.testing.assert_close(packing.masked_attention(q, k, v, alive)[alive], expected)


def test_fewer_queries_than_keys_meet_all_keys_of_their_image():
    q, k, v, alive = ragged()
    asks = alive & (torch.arange(alive.shape[1]) % 2 == 0)
    packed = packing.packed_attention(q[asks], k[alive], v[alive], alive.sum(1), asks.sum(1))
    torch.testing.assert_close(packed, one_by_one(q, k, v, alive, asks))


@pytest.mark.parametrize("gone", [[0], [3], [0, 1, 2, 3]])
def test_an_image_without_tokens_takes_part_with_none(gone):
    q, k, v, alive = ragged()
    alive[gone] = False
    packed = packing.packed_attention(q[alive], k[alive], v[alive], alive.sum(1))
    assert packed.shape == q[alive].shape
    if alive.any():
        torch.testing.assert_close(packed, one_by_one(q, k, v, alive, alive))
    assert packing.masked_attention(q, k, v, alive)[gone].abs().max() == 0


def test_attention_over_whole_images_is_torchs_to_the_bit():
    q, k, v, _ = ragged()
    dense = torch.nn.functional.scaled_dot_product_attention(*(part.transpose(1, 2) for part in (q, k, v)))
    flat = [part.flatten(0, 1) for part in (q, k, v)]
    packed = packing.packed_attention(*flat, torch.full((4,), 7))
    assert torch.equal(packed, dense.transpose(1, 2).flatten(0, 1))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_on_a_gpu_the_padded_and_the_variable_length_attention_agree_with_the_loop(dtype, tolerance):
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(4, 70, 2, 64, generator=draw) for _ in range(3))
    alive = torch.rand(4, 70, generator=draw) > 0.4
    asks = alive & (torch.arange(70) % 2 == 0)
    expected = packing.packed_attention(q[asks], k[alive], v[alive], alive.sum(1), asks.sum(1))
    q, k, v, alive, asks = (x.cuda() for x in (q, k, v, alive, asks))
    q, k, v = (x.to(dtype) for x in (q, k, v))
    found = packing.packed_attention(q[asks], k[alive], v[alive], alive.sum(1), asks.sum(1))
    torch.testing.assert_close(found.float().cpu(), expected, atol=tolerance, rtol=tolerance)
