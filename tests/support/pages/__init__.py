"""Result folders and pages that tests of reports build on."""
