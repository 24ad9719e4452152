"""What every event's data is: immutable, read tolerantly, written exactly."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


def said(default: Any) -> Any:
    """A field that came later: written only where it says something else, so that older events stay as they are."""
    return Field(default=default, exclude_if=lambda value: value == default)


class EventData(BaseModel):
    """Tolerant reader: fields of a newer version are ignored; what is written is exact.

    Whoever reads passes `extra="ignore"`: a document inside is strict by itself.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    def written(self) -> dict[str, Any]:
        """The `data` member as it is stored: JSON values, nulls left out."""
        return self.model_dump(mode="json", exclude_none=True)
