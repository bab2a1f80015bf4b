"""How many distinct problems the families have. Written by `python benchmarks/procedural.py --spaces`.

SPACES has the family and difficulty of every space below 100,000 problems, with its size in the splits test,
validation and train, as met by drawing until 20 drafts for every problem found brought nothing new. MARKS says
which generator was counted.
"""

SPACES = {}

MARKS = {}
