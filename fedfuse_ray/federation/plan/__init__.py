"""Who takes part in what, and under which terms: public, and fixed before the first round."""
