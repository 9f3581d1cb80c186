"""The neighbouring methods as plugins, one file each."""
