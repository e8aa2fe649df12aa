"""Properties of parsers that meet strangers, over inputs that hypothesis makes up."""
