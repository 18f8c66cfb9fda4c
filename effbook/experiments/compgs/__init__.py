"""CompGS's experiments: importing this package registers its recipes, their profiles and its benches."""

from effbook.experiments.compgs import bench, codes, profiles, scene, shared, showcase, spread, storage

__all__ = ["bench", "codes", "profiles", "scene", "shared", "showcase", "spread", "storage"]
