"""Honest scores and what follows from them: cross-fitting, significance, calibration, diversity, cost,
leaderboard."""
