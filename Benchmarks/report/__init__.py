"""What the commands beside this folder share. It needs nothing but Python's own library.

  cases      builds and runs the programs that measure: one case, one process, one result
  comparing  the options, rounds and results of the commands that compare
  machine    what the machine is
  model      a report: rows (cases) by columns (loops, or systems), cells of samples, and what may be concluded
  peers      the other systems
  table      a report as text
  values     figures with their units, as people read them
"""
