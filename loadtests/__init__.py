"""Load tests that decide whether a serving plan is real: plans, workloads, Locust users, exact figures, verdicts.

Everything that measures uses `gateway.domain`, so client and gateway share every definition. Reading order and import
order are those of docs/loadtests.md; `tests/test_house.py` checks them.
"""
