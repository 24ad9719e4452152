"""Bytes: the only code that knows the serializer."""
