"""Search knows a decoder by ``init_state`` and ``step`` alone, so a few that differ in their states are enough."""

import pytest
from conftest import ESSENTIAL


@pytest.fixture(params=ESSENTIAL)
def variant(request):
    return request.param
