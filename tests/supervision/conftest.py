"""Coroutine tests on a loop of their own."""

from tests.recovery.conftest import pytest_pyfunc_call

__all__ = ["pytest_pyfunc_call"]
