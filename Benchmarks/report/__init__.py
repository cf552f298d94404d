"""What the commands beside this folder share: running cases, statistics, and showing results.

  comparing  the options, rounds and results of the commands that compare
  cases      builds and runs run-case: one case, one process, one result
  machine    what the machine is, and whether something else was running on it
  model      a report: rows (cases) by columns (loops, or systems), cells of samples, and what may be concluded
  table      a report as text
  page       a report as one HTML file with plots
  values     figures with their units, as people read them

Python's own library is all they need.
"""
