"""The tests in tiers: unit (pure), architecture, kernel (system calls), system (the program)."""
