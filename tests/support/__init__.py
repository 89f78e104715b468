"""Small federations, files and clusters that tests of several folders build on."""
