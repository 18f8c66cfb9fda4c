"""3D Gaussian splatting that runs anywhere: cameras, model, projection, rasteriser."""
