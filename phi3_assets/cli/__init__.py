"""`phi3`: the graph and its results from a terminal, on the same home as the Dagster UI.

`app` has the commands, `runner` materialises the graph and narrates it. What a command does stands below, not here.
"""
