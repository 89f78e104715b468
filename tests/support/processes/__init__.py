"""Commands, clusters and runs that are broken off, in processes of their own."""
