"""Settings of the device and of its memory allocator."""
