"""The one guard against a test that hangs: how long anything that must happen is waited for before the test fails.

It is no bound on how fast anything is: this suite runs on machines that stand still for seconds at a time. What a test
promises about time it says with a clock of its own, in units of what it waits for.
"""

HANG_S = 60.0
"""Seconds after which what has not happened never will."""
