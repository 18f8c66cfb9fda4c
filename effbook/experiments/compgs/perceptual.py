"""LPIPS with the weights that lie in the data cache; nothing is downloaded for it."""

from effbook.data.cache import cache_folder, is_cached
from effbook.evaluate.lpips import Lpips, load_lpips


def available() -> bool:
    """Whether the weights of VGG16 and of LPIPS have been fetched."""
    return is_cached("vgg16") and is_cached("lpips")


def perceptual(device: str = "cpu", *, signed: bool = True) -> Lpips | None:
    """LPIPS of two images [H, W, 3] in [0, 1] as a float, or None where its weights have not been fetched.

    `signed` as in `load_lpips`: False measures as 3DGS does, and so as the dissertation's tables.
    """
    if not available():
        return None
    vgg, linear = cache_folder() / "vgg16" / "vgg16-397923af.pth", cache_folder() / "lpips" / "vgg.pth"
    return load_lpips(vgg=vgg, linear=linear, device=device, signed=signed)
