"""Command line: decides nothing; the berth command and the embedded set-up."""
