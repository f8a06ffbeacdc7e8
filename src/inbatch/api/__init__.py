"""The functions that a Python program calls: `inbatch.train`, `inbatch.evaluate`, `inbatch.load_encoder`."""
