"""Honest scores and what follows from them: significance, calibration, diversity, cost, the leaderboard."""
