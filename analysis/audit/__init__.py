"""The audit: which printed claims hold.

    python -m analysis.audit paper --out results/audit     the paper's own tables, without any training
    python -m analysis.audit check FILE.csv                anyone's table

Every check is a pure function from printed cells to an `Outcome`; README.md beside this file says what each means.
"""
