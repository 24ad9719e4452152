"""Cell: runs the real services in memory until they are quiet; plan is built on it."""
