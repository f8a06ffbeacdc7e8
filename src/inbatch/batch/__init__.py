"""One typed batch: its texts, its chunks, and its way to a device."""
