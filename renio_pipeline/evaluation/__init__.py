"""What ``renio eval`` is made of: data sets and suites, metrics with intervals, paired comparisons, and what it leaves."""
