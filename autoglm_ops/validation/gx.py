"""Great Expectations: the only module that imports it. An ephemeral context, no analytics, no progress bars, no chatter."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from autoglm_ops.contracts.data import Expectation
from autoglm_ops.errors import SettingsError
from autoglm_ops.validation.suite import Check

SHOWN = 3  # examples of unexpected values in a report


def run(checks: Sequence[Check], columns: Mapping[str, Sequence[Any]], rows: int | None = None) -> tuple[Expectation, ...]:
    """Check `columns` (name -> values, one length). Those over the table come first; if one fails the others are not run.

    `rows`: how many there are when `columns` is a sample of them; the count is then judged by it.
    Raises SettingsError for an expectation that Great Expectations does not know or whose arguments it refuses.
    """
    frame = pd.DataFrame(dict(columns))
    counting = [check for check in checks if check.over_count] if rows is not None else []
    table = _counts(counting, rows or 0)
    table += _validate([check for check in checks if check.over_table and check not in counting], frame)
    if not all(result.success for result in table):
        return table
    return table + _validate([check for check in checks if not check.over_table], frame)


def _validate(checks: Sequence[Check], frame: pd.DataFrame) -> tuple[Expectation, ...]:
    if not checks:
        return ()
    gx = _library()
    suite = gx.ExpectationSuite(name="suite", expectations=list(_built(checks)))
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    definition = context.data_sources.add_pandas("rows").add_dataframe_asset("rows")
    batch = definition.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
    outcome = batch.validate(suite)
    by_place = {result.expectation_config.meta["place"]: result for result in outcome.results}
    return tuple(_expectation(check, by_place[place]) for place, check in enumerate(checks))


def _counts(checks: Sequence[Check], rows: int) -> tuple[Expectation, ...]:
    """The number of rows as the one value of a column: a frame of so many rows would cost 30 bytes each, though it had no column."""
    judged = _validate([_of_count(check) for check in checks], pd.DataFrame({"rows": [rows]}))
    return tuple(
        Expectation(name=check.type, column=None, success=item.success, expected=_expected(check), observed=item.observed)
        for check, item in zip(checks, judged, strict=True)
    )


def _of_count(check: Check) -> Check:
    asked = check.arguments
    if check.type.endswith("_to_equal") and set(asked) == {"value"}:
        asked = {"min_value": asked["value"], "max_value": asked["value"]}
    elif not check.type.endswith("_to_be_between"):
        raise SettingsError(f"{check.type} cannot be asked of a sample; use expect_table_row_count_to_be_between")
    return Check(type="expect_column_max_to_be_between", column="rows", **asked)


def _library() -> Any:
    """The library, made quiet before its first import: it logs and reports usage unless told not to."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    for name in ("great_expectations", "py.warnings"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import great_expectations as gx
    # This one sets a level of its own when it is imported, and names temporary folders.
    logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.ERROR)
    return gx


def _built(checks: Sequence[Check]) -> Iterator[Any]:
    from great_expectations.exceptions import ExpectationNotFoundError
    from great_expectations.expectations.registry import get_expectation_impl
    from pydantic.v1 import ValidationError

    for place, check in enumerate(checks):
        try:
            yield get_expectation_impl(check.type)(**check.arguments, meta={"place": place})
        except ExpectationNotFoundError as error:
            raise SettingsError(f"{check.type} is not an expectation of Great Expectations; correct the suite") from error
        except (ValidationError, TypeError) as error:
            raise SettingsError(
                f"{check.type}: its arguments are refused: {' '.join(str(error).split())[:300]}; correct the suite"
            ) from error


def _expectation(check: Check, result: Any) -> Expectation:
    return Expectation(
        name=check.type,
        column=check.column,
        success=bool(result.success),
        expected=_expected(check),
        observed=_observed(result),
    )


def _expected(check: Check) -> str:
    """What was asked, as `name value` pairs; an expectation without arguments says it by its name."""
    asked = [
        f"{name.rstrip('_').replace('_', ' ')} {_plain(value)}" for name, value in check.arguments.items() if name != "column"
    ]
    return ", ".join(asked) or "all"


def _observed(result: Any) -> str:
    seen = result.result or {}
    if "observed_value" in seen:
        return _plain(seen["observed_value"])
    if "unexpected_count" in seen:
        return _counted(seen)
    return "could not be checked: the column is missing or holds another type"


def _counted(seen: Mapping[str, Any]) -> str:
    count, total = seen["unexpected_count"], seen["element_count"]
    if not count:
        return f"all {total} rows"
    examples = [_plain(value)[:40] for value in seen.get("partial_unexpected_list", [])[:SHOWN] if value is not None]
    return f"{count} of {total} rows not" + (f", such as {'; '.join(examples)}" if examples else "")


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple, set)):
        return " ".join(map(str, value))
    return str(value)
