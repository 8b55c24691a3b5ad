"""A trained cell of two methods, made once for each file of tests."""

import pytest

from tests.harness.cells import job, trained


@pytest.fixture(scope="module", params=["sasrec", "diffurec"])
def first(request, tmp_path_factory):
    return trained(tmp_path_factory.mktemp(request.param), job(request.param))
