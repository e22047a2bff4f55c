"""A few captions and references on which every score can be checked by hand."""

CAPTIONS = ["a dog runs on the grass", "two birds", "the man rides a horse", "a small boat on the sea"]
REFERENCES = [
    ["a dog is running on the green grass", "the brown dog runs on grass", "a dog runs"],
    ["two small birds fly", "two birds over the sea"],
    ["a man in a red hat rides a brown horse", "a man rides a horse"],
    ["a boat on the sea", "a small white boat on the water", "the sea"],
]
