"""Finds misspelt settings: a limit or a key that nobody reads must not pass for one that is set."""

import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches

PREFIX = "HOLDFAST_"
_OF_KUBERNETES = re.compile(
    rf"{PREFIX}(?:\w+_)?(?:SERVICE_HOST=.*|SERVICE_PORT(?:_\w+)?=\d+|PORT_\d+_(?:TCP|UDP|SCTP)(?:_\w+)?=.*"
    r"|PORT=(?:tcp|udp|sctp)://.*)"
)
"""What it puts into every container of a namespace that has a service named holdfast or holdfast-…."""


def unknown_settings(variables: Mapping[str, str], fields: Collection[str]) -> list[str]:
    """A sentence for each variable that has the settings' prefix, and belongs to none of the `fields`.

    It names the variable and the nearest setting, never the value.
    """
    known = {field.upper() for field in fields}
    sentences = []
    for variable, value in variables.items():
        name = variable.upper()
        wanted = name.removeprefix(PREFIX)
        if wanted == name or wanted in known or _OF_KUBERNETES.fullmatch(f"{name}={value}"):
            continue
        nearest = get_close_matches(wanted, known, n=1)
        advice = f"; did you mean {PREFIX}{nearest[0]}?" if nearest else ": README.md lists them"
        sentences.append(f"{variable} is not a setting{advice}")
    return sentences
