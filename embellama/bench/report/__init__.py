"""The report of a comparison of file types: one HTML file that loads nothing."""
