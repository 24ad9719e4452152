"""What a document of quotas and cohorts would change, field by field: shown before it is applied. Pure."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, cast

from berth.messages.commands import SettingChange
from berth.model.quota import Cohort, Quota

APART = frozenset({"namespace", "name", "sequence"})
"""What names a quota or says when it was set."""
Said = dict[str, Any]


def differences(path: str, before: Quota | Cohort | None, after: Quota | Cohort) -> list[SettingChange]:
    """One for each field that would be another afterwards; of a new one that it is new, and what it says."""
    old, new = _said(_silent(after) if before is None else before), _said(after)
    found = [SettingChange(path=path, after="new")] if before is None else []
    return found + [
        SettingChange(path=f"{path}.{name}", before=None if before is None else old.get(name), after=new.get(name))
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]


def _silent(setting: Quota | Cohort) -> Quota | Cohort:
    """One of the same name that says nothing."""
    if isinstance(setting, Quota):
        return Quota(namespace=setting.namespace, hard={}, soft={}, sequence=setting.sequence)
    return Cohort(name=setting.name, soft={}, sequence=setting.sequence)


def _said(setting: Quota | Cohort) -> Said:
    """Every field by its name, limits by dimension."""
    said: Said = {}
    for field in fields(setting):
        value = getattr(setting, field.name)
        if field.name in APART:
            continue
        if isinstance(value, Mapping):
            amounts = cast("Mapping[str, int]", value)
            said |= {f"{field.name}.{dimension}": amount for dimension, amount in amounts.items()}
        else:
            said[field.name] = value
    return said
