"""CompGS's experiments: importing this package registers its recipes, their profiles and its benches."""

from effbook.experiments.compgs import bench, profiles, scene, shared, showcase, storage

__all__ = ["bench", "profiles", "scene", "shared", "showcase", "storage"]
