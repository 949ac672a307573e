"""The HTTP contract as an OpenAPI 3.1 document, made of what parses, refuses and answers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec

from .. import errors
from .._version import __version__
from ..core.events import EVENT_TYPES, MAX_ID_LENGTH, EventType
from ..core.fields import ENVELOPE, TIMESTAMP, Shape
from ..core.signatures import SCHEMES
from ..errors import RequestRefused
from .batches import MAX_ITEMS
from .responses import Accepted, Answered, Health, Refused, RefusedItem

__all__ = ["openapi"]

Json = dict[str, Any]

_REFUSALS = [
    refusal
    for refusal in (getattr(errors, name) for name in errors.__all__)
    if issubclass(refusal, RequestRefused) and refusal is not RequestRefused
]
_OF_ITEMS = {errors.TaskMismatch, errors.HandlerFailed, errors.UnknownSender}
"""Refusals that a batch reports for its items alone."""
_OF_ROUTES = {errors.RouteNotFound, errors.MethodNotAllowed}
_ID: Json = {"type": "string", "minLength": 1, "maxLength": MAX_ID_LENGTH}
_AS_GIVEN = "As it is in the URL that was given."
_REF = "#/components/schemas/{name}"


def openapi(
    *,
    prefix: str,
    server: str | None = None,
    schemes: Collection[str] = tuple(SCHEMES),
    custom_events: Iterable[str] = (),
    required: bool = True,
    names_senders: bool = False,
) -> Json:
    """Return the contract of an application as an OpenAPI 3.1 document.

    Args:
        prefix: the path of the routes.
        server: the scheme and the host, if they are known.
        schemes: the names of the signature schemes that are accepted.
        custom_events: event types beyond the built-in three.
        required: True if requests without a proof are refused.
        names_senders: True if callback URLs name their creator.
    """
    _, answers = msgspec.json.schema_components((Accepted, Answered, Health, Refused, RefusedItem), ref_template=_REF)
    answers["Answered"]["properties"]["results"]["items"] = {"oneOf": [_ref("Accepted"), _ref("RefusedItem")]}
    events = {name.capitalize(): _event_schema(name, type_) for name, type_ in EVENT_TYPES.items()}
    custom = {f"Custom_{name}": _envelope(name) for name in custom_events}
    names = [*events, *custom]
    schemas = {
        **answers,
        **events,
        **custom,
        "Event": {"oneOf": [_ref(name) for name in names]},
        "Item": {
            "allOf": [
                _ref("Event"),
                {
                    "properties": {
                        "attempt": {"type": ["integer", "null"], "minimum": 1},
                        "token": {"type": "string"},
                        **({"sender": {"type": "string", "description": _AS_GIVEN}} if names_senders else {}),
                    }
                },
            ]
        },
        "Batch": {
            "type": "object",
            "required": ["events"],
            "properties": {"events": {"type": "array", "maxItems": MAX_ITEMS, "items": _ref("Item")}},
        },
    }
    document: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "Callbacks",
            "version": __version__,
            "description": "The routes of flask_contenthub_webhook for senders, and what it forwards to receivers.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": server or "/"}],
        "paths": _paths(prefix, schemes, required=required, names_senders=names_senders),
        "webhooks": {name: _forward(schema) for name, schema in zip(EVENT_TYPES, events, strict=True)},
        "components": {"schemas": schemas, "securitySchemes": _proofs(schemes)},
    }
    return document


# --- routes --------------------------------------------------------------------------------------------------


def _paths(prefix: str, schemes: Collection[str], *, required: bool, names_senders: bool) -> Json:
    proofs: list[Json] = [
        *([{}] if not required else []),
        *({part: [] for part in _parts(scheme)} for scheme in schemes),
    ]
    over_the_body = [proof for proof in proofs if "url" not in proof]
    own_words: Json = {"type": "object", "description": "The event in the service's own words."}
    return {
        f"{prefix}/callback/{{task_id}}": {
            "parameters": [_parameter("path", "task_id", {"type": "string", "minLength": 1}, "Our id of the task.")],
            "post": {
                "operationId": "callback",
                "summary": "Receive one event about one task.",
                "parameters": [
                    _parameter("query", "attempt", {"type": "integer", "minimum": 1}, _AS_GIVEN),
                    *([_parameter("query", "sender", {"type": "string"}, _AS_GIVEN)] if names_senders else []),
                ],
                "security": proofs,
                "requestBody": _body(_ref("Event")),
                "responses": _responses({200: "Accepted", 202: "Accepted"}, without=()),
            },
        },
        f"{prefix}/callbacks": {
            "post": {
                "operationId": "batch",
                "summary": "Receive many events, each applied in its own transaction.",
                "security": [*over_the_body, *([{}] if "url" in schemes and required else [])],
                "requestBody": _body(_ref("Batch")),
                "responses": _responses({200: "Answered"}, without=_OF_ITEMS),
            }
        },
        f"{prefix}/callbacks/{{sender}}": {
            "parameters": [
                _parameter("path", "sender", {"type": "string", "minLength": 1}, "The name of the creator.")
            ],
            "post": {
                "operationId": "callback_of_sender",
                "summary": "Receive one event of a service in its own words.",
                "requestBody": _body(own_words),
                "responses": _responses({200: "Accepted", 202: "Accepted"}, without=()),
            },
        },
        f"{prefix}/health": {
            "get": {
                "operationId": "health",
                "summary": "Show that a process answers, and how it is set up.",
                "responses": _responses({200: "Health"}, without=set(_REFUSALS) - _OF_ROUTES),
            }
        },
    }


def _parameter(place: str, name: str, schema: Json, description: str) -> Json:
    return {"in": place, "name": name, "required": place == "path", "schema": schema, "description": description}


def _body(schema: Json) -> Json:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _responses(good: Mapping[int, str], *, without: Collection[type[RequestRefused]]) -> Json:
    """Return the answers of a route: those of success, and every refusal by its status, with its codes."""
    answers: Json = {
        str(status): {"description": f"{name}.", "content": {"application/json": {"schema": _ref(name)}}}
        for status, name in good.items()
    }
    by_status: dict[int, list[type[RequestRefused]]] = {}
    for refusal in _REFUSALS:
        if refusal not in without:
            by_status.setdefault(refusal.status, []).append(refusal)
    for status, refusals in sorted(by_status.items()):
        codes = [refusal.code for refusal in refusals]
        schema = {"allOf": [_ref("Refused"), {"properties": {"error": {"properties": {"code": {"enum": codes}}}}}]}
        answer: Json = {
            "description": " Or: ".join(" ".join((refusal.__doc__ or "").split()) for refusal in refusals),
            "content": {"application/json": {"schema": schema}},
        }
        if all(refusal.retry_after is not None for refusal in refusals):
            answer["headers"] = {"Retry-After": {"required": True, "schema": {"type": "integer", "minimum": 1}}}
        answers[str(status)] = answer
    return answers


# --- proofs --------------------------------------------------------------------------------------------------


def _parts(scheme: str) -> list[str]:
    headers = SCHEMES[scheme].headers
    return [scheme] if len(headers) < 2 else [f"{scheme}_{header}" for header in headers]  # noqa: PLR2004


def _proofs(schemes: Collection[str]) -> Json:
    """Return the security schemes: a token in the query, or the headers of a signature, all of them together."""
    proofs: Json = {}
    for name in schemes:
        scheme = SCHEMES[name]
        description = f"{scheme.reads}; for {scheme.used_by}."
        if not scheme.headers:
            proofs[name] = {"type": "apiKey", "in": "query", "name": "token", "description": description}
        for part, header in zip(_parts(name), scheme.headers, strict=False):
            proofs[part] = {"type": "apiKey", "in": "header", "name": header, "description": description}
    return proofs


# --- events --------------------------------------------------------------------------------------------------


def _event_schema(name: str, type_: EventType[Any]) -> Json:
    """Return the schema of a built-in event, as senders should write it."""
    needed = {key: {**_schema(shape), "description": shape.name} for key, shape in type_.needed.items()}
    part: Json = _schema(type_.shape)
    part["properties"] = {**needed, **part["properties"]}
    if needed:
        part["required"] = list(needed)
    schema = _envelope(name)
    schema["properties"][type_.part] = part if needed else _or_null(part)
    if needed:
        schema["required"] = [*schema["required"], type_.part]
    if type_.part == "error":
        text = {"type": "string", "pattern": r"\S", "description": "Its message."}
        schema["properties"]["error"] = {"oneOf": [part, text]}
    return schema


def _envelope(name: str) -> Json:
    optional = {"timestamp": TIMESTAMP, **ENVELOPE.fields}
    return {
        "type": "object",
        "required": ["event", "taskId"],
        "properties": {
            "event": {"const": name},
            "taskId": _ID,
            "status": {"const": name},
            **{key: _or_null({**_schema(shape), "description": shape.name}) for key, shape in optional.items()},
        },
    }


def _schema(shape: Shape) -> Json:
    """Return the schema of what a sender should write; other fields are allowed, and kept."""
    if shape.items is not None:
        return {"type": "array", "items": _schema(shape.items)}
    if not shape.fields:
        return dict(msgspec.json.schema(shape.plain if shape.written is None else shape.written))
    fields = {name: _or_null({**_schema(field), "description": field.name}) for name, field in shape.fields.items()}
    schema: Json = {"type": "object", "properties": fields}
    return schema if shape.written is None else {"anyOf": [dict(msgspec.json.schema(shape.written)), schema]}


def _or_null(schema: Json) -> Json:
    description = schema.pop("description", None)
    nullable: Json = {"anyOf": [schema, {"type": "null"}]}
    return nullable if description is None else {**nullable, "description": description}


def _forward(schema: str) -> Json:
    """Return a forwarded event: the sender's own, under our task id, signed by Standard Webhooks."""
    ours = {"required": ["event", "taskId", "timestamp"], "properties": {"timestamp": {"type": ["string", "number"]}}}
    headers = [
        _parameter("header", header, {"type": "string"}, "See https://www.standardwebhooks.com/.") | {"required": True}
        for header in SCHEMES["standard"].headers
    ]
    return {
        "post": {
            "summary": f"A `{schema.lower()}` event that took effect is forwarded.",
            "parameters": headers,
            "requestBody": _body({"allOf": [_ref(schema), ours]}),
            "responses": {"2XX": {"description": "It has arrived."}, "default": {"description": "It is sent again."}},
        }
    }


def _ref(name: str) -> Json:
    return {"$ref": _REF.format(name=name)}
