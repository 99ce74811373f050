"""One idempotent effect each."""
