"""Reservation service: decides windows, their activation and their expiry."""
