"""Files and data sets as columns with roles."""
