"""A request as events and evaluations carry it: the same meaning as the document, in the normalised spelling.

A service reads one for every request of every record, so nothing here calls into Python while it is read.
"""

from typing import Annotated, Any

from pydantic import ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.functional_serializers import PlainSerializer
from pydantic_core import CoreSchema, core_schema

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


def _body(request: Request) -> dict[str, Any]:
    return request.body


class _Stored:
    """Reads a StoredRequest, or takes a request as it is, without a call into Python."""

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        stored = handler.generate_schema(StoredRequest)
        return core_schema.union_schema([stored, core_schema.is_instance_schema(Request)], mode="left_to_right")

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        assert schema["type"] == "union"
        stored = schema["choices"][0]
        assert not isinstance(stored, tuple)
        return handler(stored)


RequestField = Annotated[Request, _Stored, PlainSerializer(_body)]
"""A request inside another message: written as its normalised body."""
