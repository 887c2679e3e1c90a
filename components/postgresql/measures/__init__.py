"""What a fingerprint counts and digests."""
