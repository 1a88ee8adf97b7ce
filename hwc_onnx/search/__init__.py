"""The only place that loops: space, agents, referees, study."""
