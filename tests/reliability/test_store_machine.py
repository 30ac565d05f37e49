"""A short run of the store against a dict; the sweep plays for minutes."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from store_machine import StoreMachine

TestStoreUnderCrashesAndDamage = StoreMachine.TestCase
TestStoreUnderCrashesAndDamage.settings = settings(
    max_examples=6, stateful_step_count=14, deadline=None, suppress_health_check=list(HealthCheck)
)
