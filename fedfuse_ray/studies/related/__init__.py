"""The related work's systems, run beside each other, in the paper's table of yes and no.

`config/presets/systems/` holds a file for each. `running` runs them, `columns` derives the five
cells from what a run left behind, `results` keeps it all, and `page` shows it.
"""
