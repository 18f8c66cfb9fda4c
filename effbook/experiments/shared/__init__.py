"""What the chapters share: training loops, batches of images, draws, and the table of a profile's changes."""
