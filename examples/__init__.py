"""Worked examples of seatrial."""
