"""`make faults`: what can happen to a machine is done to the tiny model's graph, at each stage, and the rest is judged.

Real processes are killed, real disks are full, real files are damaged. After each fault the same is asked, whatever
it was: does anything go on that nobody owns, does a half artefact stand, was anything lost or made twice, and does the
next run end with the same bytes as one that nothing happened to? Printed as a matrix, fault by stage, with counts.

`scene` has the home and what is asked of it, `findings` the matrix; each other module has the faults of one kind.
"""
