"""Quota service: decides admission and the order of requests, and publishes decisions."""
