"""From logs to counts: a plan as one declaration, its statements for any engine, and what their rows mean."""

from seatrial.adapters.counting import statements
from seatrial.adapters.counting.assembly import Counted, aged, evidence_of
from seatrial.adapters.counting.declaration import Declaration
from seatrial.adapters.counting.look import Looker, silent
from seatrial.adapters.counting.statements import REFERENCE, SETTLED

__all__ = ["REFERENCE", "SETTLED", "Counted", "Declaration", "Looker", "aged", "evidence_of", "silent", "statements"]
