"""What a site provides around the platform: keys, an object store, the settings that name them."""
