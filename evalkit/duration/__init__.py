"""Duration models: curves, regressions, mixed hazards, and what they say in percentage points, on arrays and frames."""
