"""What several tests share: tiny models and data, whole runs, real ranks, oracles."""
