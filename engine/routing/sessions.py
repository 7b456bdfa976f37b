"""Where the last request of each session was sent."""

from collections import OrderedDict

MAX_SESSIONS = 100_000


class Sessions:
    """Sessions by the name that their clients give them; those used least recently are dropped."""

    def __init__(self, max_sessions: int = MAX_SESSIONS) -> None:
        self._max_sessions = max_sessions
        self._ranks: OrderedDict[str, int] = OrderedDict()

    def rank_of(self, session_id: str) -> int | None:
        """Where it was last; None if it is not known."""
        return self._ranks.get(session_id)

    def put(self, session_id: str, rank: int) -> None:
        """It is there now; an empty name is no session."""
        if not session_id:
            return
        self._ranks[session_id] = rank
        self._ranks.move_to_end(session_id)
        if len(self._ranks) > self._max_sessions:
            self._ranks.popitem(last=False)

    def forget_rank(self, rank: int) -> None:
        """Nothing of a rank is left."""
        for session_id in [s for s, there in self._ranks.items() if there == rank]:
            del self._ranks[session_id]
