"""A server that is restarted is waited for: what was not committed is done again."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from types import FunctionType
from typing import ParamSpec, TypeVar

from tenacity import Retrying, before_sleep_log, retry_if_exception, stop_after_delay, wait_random_exponential

from orchestrator.store.errors import StoreUnreachable

RESTART_S = 60.0
"""A server may be away for so long."""
P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C")
log = logging.getLogger(__name__)


def lasting(cls: type[C], *, repeatable: bool = False) -> type[C]:
    """Let every public method of a class, each one transaction, outlive a restart of the database's server.

    A method whose commit was not answered may have done its work: it is repeated only where that does no harm.

    Args:
        cls: the class.
        repeatable: every method does the same when it is called again.
    """
    for name, member in list(vars(cls).items()):
        if isinstance(member, FunctionType) and not name.startswith("_"):
            setattr(cls, name, _again(member, repeatable))
    return cls


def _again(method: Callable[P, R], repeatable: bool) -> Callable[P, R]:
    def worth(error: BaseException) -> bool:
        return isinstance(error, StoreUnreachable) and (repeatable or not error.uncertain)

    @functools.wraps(method)
    def outlived(*args: P.args, **kwargs: P.kwargs) -> R:
        retrying = Retrying(retry=retry_if_exception(worth), stop=stop_after_delay(RESTART_S), reraise=True,
                            wait=wait_random_exponential(0.2, max=2), before_sleep=before_sleep_log(log, logging.INFO))
        return retrying(method, *args, **kwargs)

    return outlived
