"""Several states: benefit, subsidised job, regular job and back, and what an instrument does to months in each."""
