"""The pages of docs/reference, one module for each kind of source that they are made from."""
