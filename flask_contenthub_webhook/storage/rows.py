"""Build ORM objects from rows that were already read."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import instance_state

from ..core.received import Row

__all__ = ["ModelTable", "Row", "Tx", "is_row_id", "leaves_columns_to_sqlalchemy"]

Tx = Session | sa.Connection
"""A transaction: of a session if handlers take part in it, else of a connection, which costs less."""


def is_row_id(value: int) -> bool:
    """Return True if a row may have this id; drivers refuse others in different ways."""
    return 0 < value < 2**63


class ModelTable:
    """Builds persistent ORM objects from known column values, so handlers get theirs without another SELECT.

    A model that observes its loading (``reconstructor``, mutable columns, inheritance) is loaded by the ORM instead.
    """

    def __init__(self, model: type[Any]) -> None:
        mapper = sa.inspect(model)
        self.model = model
        self.table: sa.Table = mapper.local_table
        self.columns: dict[str, sa.Column[Any]] = {
            key: column for key, column in mapper.columns.items() if column.table is self.table
        }
        self._primary_key = [mapper.get_property_by_column(column).key for column in mapper.primary_key]
        self._renamed = any(key != column.key for key, column in self.columns.items())
        self._manager = mapper.class_manager
        self._mapper = mapper
        self._missing_by_loaded: dict[tuple[str, ...], frozenset[str]] = {}

    @cached_property
    def _loadable(self) -> frozenset[str]:
        """The attributes that load when they are read; only looked at now, when all of the host's models exist."""
        return frozenset(self._mapper.column_attrs.keys())

    def _missing(self, loaded: tuple[str, ...]) -> frozenset[str]:
        """Return the attributes of an object that load when they are read, given those that it has."""
        missing = self._missing_by_loaded.get(loaded)
        if missing is None:
            missing = self._missing_by_loaded[loaded] = self._loadable.difference(loaded)
        return missing

    @cached_property
    def _is_plain(self) -> bool:
        return self._mapper.polymorphic_on is None and len(self._mapper.tables) == 1 and not self._manager.dispatch.load

    def parameters(self, values: Row) -> Row:
        """Return values by column names, which a host may have mapped to other attribute names."""
        if not self._renamed:
            return values
        return {self.columns[key].key: value for key, value in values.items()}

    def new_row(self, values: Row) -> Row:
        """Return the values of a new row as in :meth:`parameters`, with those that the ORM writes by itself."""
        return {**self.parameters(values), **self.written_by_orm} if self.written_by_orm else self.parameters(values)

    @cached_property
    def written_by_orm(self) -> dict[str, Any]:
        """The discriminator and the first version, if the host's mapper has them; by names of columns."""
        discriminator, version = self._mapper.polymorphic_on, self._mapper.version_id_col
        written: dict[str, Any] = {}
        if isinstance(discriminator, sa.Column) and self._mapper.polymorphic_identity is not None:
            written[discriminator.key] = self._mapper.polymorphic_identity
        if version is not None and callable(self._mapper.version_id_generator):
            written[version.key] = self._mapper.version_id_generator(None)
        return written

    def object_from_row(self, session: Session, values: Row) -> Any:
        """Return the object of a row, as if this session, which lacks it, had loaded these attributes."""
        if not self._is_plain:
            return session.get(self.model, tuple(values[key] for key in self._primary_key))
        instance = self._manager.new_instance()
        instance.__dict__.update(values)
        # What follows is make_transient_to_detached() and session.add(), without looking at every attribute twice.
        state = instance_state(instance)
        state.key = self._mapper.identity_key_from_primary_key([values[key] for key in self._primary_key])
        state.expired_attributes.update(self._missing(tuple(values)))
        attach = getattr(session, "_save_or_update_impl", None)
        if attach is None:
            session.add(instance)
        else:
            attach(state)
        return instance


def leaves_columns_to_sqlalchemy(tasks: ModelTable, deliveries: ModelTable) -> bool:
    """Tell whether SQLAlchemy has to fill columns of the host's, which it only does in plain statements.

    These are Python-side defaults in our INSERTs, of which tasks have none, and ``onupdate``.
    """
    given = [deliveries.columns[key] for key in ("late", "tries", "occurrences", "received_at")]
    own = [column for column in deliveries.table.columns if all(column is not each for each in given)]
    return (
        bool(deliveries.written_by_orm)
        or any(column.default is not None for column in own)
        or any(column.onupdate is not None for column in (*tasks.table.columns, *own))
    )
