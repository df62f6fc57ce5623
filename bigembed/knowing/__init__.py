"""What is known of a table from the data and from a run: counts, collisions, norms, names of rows. No torch.

``sketch`` and ``tally`` count in bounded memory, ``collisions`` are the formulas, ``elements`` is what a table sees of the data,
``measure`` goes once through the data, ``norms`` once through a checkpoint, ``names`` finds the raw values again.
"""
