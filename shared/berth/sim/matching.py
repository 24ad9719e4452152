"""Which subjects a pattern covers, as the server decides it."""


def matches(pattern: tuple[str, ...], tokens: tuple[str, ...]) -> bool:
    """Whether the pattern, with `*` for one token and a last `>` for one or more, covers the subject."""
    if pattern[-1] == ">":
        return len(tokens) >= len(pattern) and all(
            part in ("*", token) for part, token in zip(pattern[:-1], tokens, strict=False)
        )
    return len(pattern) == len(tokens) and all(
        part in ("*", token) for part, token in zip(pattern, tokens, strict=True)
    )
