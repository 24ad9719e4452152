"""Raft node: decides who leads and whether a proposal is committed."""
