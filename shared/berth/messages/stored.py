"""A request as events and evaluations carry it: the same meaning as the document, in the normalised spelling.

A service reads one for every request of every record.
"""

from typing import Annotated, Any

from pydantic import ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.functional_serializers import PlainSerializer
from pydantic_core import CoreSchema, core_schema

from berth.messages.alike import Alike
from berth.messages.requests import Amount, Amounts, Request


class StoredAmounts(Amounts):
    """Resources as events write them: millicores; fields of newer versions are ignored."""

    model_config = ConfigDict(extra="ignore")

    cpu_millicores: Amount = 0

    @property
    def millicores(self) -> int:
        return self.cpu_millicores


class StoredRequest(Request):
    """A request read back from an event: the same meaning, the event's spelling.

    Whoever reads passes `extra="ignore"`, so that fields of newer versions are ignored in every part of it.
    """

    model_config = ConfigDict(extra="ignore")

    resources: StoredAmounts  # pyright: ignore[reportIncompatibleVariableOverride] frozen, so it may be narrower


_ALIKE = Alike()


def read_stored(value: Any) -> Request:
    """The request that `value` writes as events do, or is already."""
    if isinstance(value, Request):
        return value
    found = _ALIKE.known(value)
    if found is None:
        found = StoredRequest.model_validate(value, extra="ignore")
        _ALIKE.remember(value, found)
    return found


def _body(request: Request) -> dict[str, Any]:
    return request.body


class _Stored:
    @classmethod
    def __get_pydantic_core_schema__(cls, _source: object, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(read_stored)

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return handler(StoredRequest.__pydantic_core_schema__)


RequestField = Annotated[Request, _Stored, PlainSerializer(_body)]
"""A request inside another message: written as its normalised body."""
