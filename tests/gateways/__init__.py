import pytest

# The suites' own asserts tell as much as those of a test module.
pytest.register_assert_rewrite(*(f"{__name__}.{name}" for name in ("calls_suite", "submit_suite", "poll_suite", "text_suite")))
