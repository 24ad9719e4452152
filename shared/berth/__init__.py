"""What Berth is and what happened: the language, the folds, the ports and the client.

`import berth` gives `berth.connect`, `berth.Request`, `berth.Preferences`, `berth.blocking` and what they need.
"""

from berth.exports import public as __getattr__  # noqa: F401 - PEP 562: names are imported when they are used
