"""Reading of jaxprs, for tests of what a function computes and keeps."""


def equations(jaxpr):
    """Every equation of a jaxpr, those of the jaxprs inside it included."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, (list, tuple)) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)
