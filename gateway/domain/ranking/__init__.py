"""Votes -> what they may claim: strengths, intervals, ranks, and the many ways in which the answer could be otherwise.

`votes` says what a vote is, `bradley_terry` and `clustered` turn votes into strengths with their uncertainty, `ranks`
into what may be said aloud; the rest asks how far that holds. `analysis` gathers everything. Collecting votes, drawing
pages and choosing words belong elsewhere: what cannot be said is a code here.
"""
