"""A score for every position, and which positions have the highest: found anew only when the last of them falls.

What is placed by packing makes the best node better still, so that the next of its kind need not look at the others.
"""

NOTHING_FITS = -1


class Ranking:
    """Scores of `size` positions, whole numbers of at least 0; NOTHING_FITS where nothing fits, and at first."""

    __slots__ = ("_best", "_leaders", "scores")

    def __init__(self, size: int) -> None:
        self.scores = [NOTHING_FITS] * size
        self._best = NOTHING_FITS
        self._leaders: set[int] = set()
        """Who has `_best`, if anybody: empty, too, when that is not known any more."""

    def put(self, position: int, score: int) -> None:
        before = self.scores[position]
        if score == before:
            return
        self.scores[position] = score
        if not self._leaders:
            return
        if score > self._best:
            self._best, self._leaders = score, {position}
            return
        if score == self._best:
            self._leaders.add(position)
        elif before == self._best:
            self._leaders.discard(position)

    def leaders(self) -> list[int]:
        """The positions with the highest score, in order; none where nothing fits."""
        if not self._leaders:
            self._best = max(self.scores, default=NOTHING_FITS)
            if self._best == NOTHING_FITS:
                return []
            self._leaders = {position for position, score in enumerate(self.scores) if score == self._best}
        return sorted(self._leaders) if len(self._leaders) > 1 else list(self._leaders)
