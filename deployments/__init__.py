"""How seatrial is started: the local stack, its processes and its database."""
