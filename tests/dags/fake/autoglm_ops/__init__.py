"""Stands in for the real package in a checkout that only keeps the contract of the command line."""
