"""Scenarios that take longer than a test should; each prints what it saw and fails if it must."""
