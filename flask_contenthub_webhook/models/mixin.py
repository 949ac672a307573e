"""The base of the mixins: it puts their constraints and indexes onto the tables of a host's models.

They are added once a model is mapped, so a ``__table_args__`` of the host's, in whatever form, replaces none of them.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import MappedAsDataclass, MappedColumn, Mapper, mapped_column

from .columns import named

__all__ = ["Columns", "TableMixin"]

Columns = Mapping[str, sa.Column[Any]]
"""The columns of a table by the names of their attributes; a host may call a column otherwise."""


class TableMixin:
    """Base of a mixin that declares columns, and constraints in :meth:`_constrain`."""

    __allow_unmapped__ = False

    def __init_subclass__(cls, **options: Any) -> None:
        if issubclass(cls, MappedAsDataclass):
            _declare_fields(cls)
        super().__init_subclass__(**options)

    @classmethod
    def _constrain(cls, table: sa.Table, columns: Columns) -> None:
        """Add constraints and indexes to a table; its primary key is there already."""


@event.listens_for(TableMixin, "after_mapper_constructed", propagate=True)
def _complete_table(mapper: Mapper[Any], model: type[TableMixin]) -> None:
    table = mapper.local_table
    parent = mapper.inherits
    if parent is not None and (issubclass(parent.class_, TableMixin) or table is parent.local_table):
        return
    if not isinstance(table, sa.Table):
        return
    key = table.primary_key
    if key.name is None or isinstance(key.name, sa.schema.conv):  # by which a naming convention marks its names
        key.name = named("pk", table.name)
    if len(key.columns) == 1 and isinstance(key.columns[0].type, sa.Integer):
        # Or SQLite would give the id of a deleted last row to the next one, and other rows and notes name deleted ones.
        table.dialect_options["sqlite"]["autoincrement"] = True
    for dialect in ("mysql", "mariadb"):  # the database's own character set may hold less than what services say
        if not {f"{dialect}_{word}" for word in ("charset", "default_charset", "collate")} & set(table.kwargs):
            table.dialect_options[dialect]["charset"] = "utf8mb4"
    model._constrain(table, dict(mapper.columns.items()))  # noqa: SLF001 - for subclasses alone


def _declare_fields(model: type[Any]) -> None:
    """Declare the columns again on a model that becomes a dataclass; SQLAlchemy takes fields from no other class.

    They are keyword-only, since most have a default, and not in the ``repr``, since some hold secrets.
    """
    hints: dict[str, Any] = {}
    for base in model.__mro__[1:]:
        if issubclass(base, TableMixin):
            hints = get_type_hints(base) | hints
    own = inspect.get_annotations(model)
    fields = {
        key: hint
        for key, hint in hints.items()
        if key not in own and isinstance(inspect.getattr_static(model, key, None), MappedColumn)
    }
    for key, hint in fields.items():
        setattr(model, key, _field(inspect.getattr_static(model, key), hint))
    model.__annotations__ = fields | own


def _field(declared: MappedColumn[Any], hint: Any) -> Any:
    ((column, order),) = declared.columns_to_assign
    default = column.default
    if column.primary_key:
        return mapped_column(column.type, primary_key=True, sort_order=order, init=False, repr=False)
    options: dict[str, Any] = {}
    if isinstance(default, sa.ColumnDefault) and default.is_callable:
        make = default.arg
        options = {"default_factory": lambda: make(None), "insert_default": make}
    elif isinstance(default, sa.ColumnDefault) and default.is_clause_element:
        options = {"default_factory": lambda: default.arg, "insert_default": default.arg}
    elif isinstance(default, sa.ColumnDefault):
        options = {"default": default.arg}
    elif type(None) in get_args(get_args(hint)[0]):
        options = {"default": None}
    return mapped_column(column.type, sort_order=order, kw_only=True, repr=False, **options)
