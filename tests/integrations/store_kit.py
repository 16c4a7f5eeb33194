"""An S3 on loopback, and a proxy before it that fails on demand."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from faultproxy import FaultProxy, none

from pqvault.storage import remote as remote_module
from pqvault.storage import retry


@pytest.fixture(scope="session")
def moto() -> Iterator[int]:
    """The port of an S3 on loopback."""
    pytest.importorskip("moto")
    pytest.importorskip("s3fs")
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()


@pytest.fixture(scope="session")
def proxy(moto: int) -> Iterator[FaultProxy]:
    """A proxy before it."""
    found = FaultProxy(moto)
    yield found
    found.close()


@pytest.fixture
def bucket(proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a new bucket, behind the proxy."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    monkeypatch.setattr(retry, "_FIRST", 0.01)
    remote_module._reach.cache_clear()
    import s3fs

    name = f"b{uuid.uuid4().hex[:12]}"
    s3fs.S3FileSystem(skip_instance_cache=True).mkdir(name)
    proxy.log.clear()
    yield f"s3://{name}"
    proxy.fault = none
    remote_module._reach.cache_clear()
