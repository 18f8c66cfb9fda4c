"""CompGS's experiments: importing this package registers its recipes and their profiles."""

from effbook.experiments.compgs import profiles, scene, storage

__all__ = ["profiles", "scene", "storage"]
