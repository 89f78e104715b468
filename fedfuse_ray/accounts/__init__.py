"""The privacy account: what all runs that it knows have charged to the same records, added up."""
