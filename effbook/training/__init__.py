"""What the libraries that train on views share: views of images, seeds, processes, a memory bank, the loop."""
