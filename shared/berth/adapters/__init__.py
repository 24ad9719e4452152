"""The real world, one file per port."""
