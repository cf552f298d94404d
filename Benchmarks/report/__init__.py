"""Modules shared by the commands in the parent folder. They need only Python's standard library.

  cases      builds and runs the programs that measure: one case, one process, one result
  comparing  the options, rounds and results of the commands that compare
  machine    a description of the machine
  model      a report: rows (cases) by columns (loops, or systems), cells of samples, and the conclusion
  peers      the other systems
  table      a report as text
  values     figures with their units, as people read them
"""
