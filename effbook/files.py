"""Writing files so that a reader sees the old or the new one, whole, and a killed writer leaves nothing behind."""
