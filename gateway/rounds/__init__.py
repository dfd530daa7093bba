"""Blind review rounds: from a plan, through sealed answers and blind votes, to a result that anyone can recompute.

Facts and arithmetic stand in `gateway.domain` (`rounds`, `assignment`, `redaction`, `ranking`, `sealing`); here is what
is kept, who may do what when, and what leaves the house.
"""
