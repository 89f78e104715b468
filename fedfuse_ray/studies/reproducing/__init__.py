"""The paper's experiments, run again: its tables and figures beside what is measured here.

`paper` holds the paper's figures, `studies` what is run for each, `running` runs it, `results`
reads it back, and `page` shows claim beside measurement.
"""
