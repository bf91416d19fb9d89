"""Whether W&B can be reached without asking anybody."""

import netrc
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

PATIENCE_S = 2.0  # for the W&B host to answer, seconds


def why_offline() -> str | None:
    """Why W&B cannot be reached without asking somebody; None if it can."""
    url = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai")
    host = url.hostname or "api.wandb.ai"
    if not os.environ.get("WANDB_API_KEY") and not _key_in_netrc(host):
        return f"there is no key for {host} (neither WANDB_API_KEY nor an entry in the netrc file)"
    proxy = urlsplit(getproxies().get(url.scheme, ""))
    target, port = (proxy.hostname, proxy.port or 80) if proxy.hostname else (host, url.port or 443)
    return None if _answers(target, port) else f"{target} does not answer within {PATIENCE_S:g} s"


def _key_in_netrc(host: str) -> bool:
    given = os.environ.get("NETRC")
    for path in [Path(given)] if given else [Path.home() / ".netrc", Path.home() / "_netrc"]:
        try:
            if netrc.netrc(path).authenticators(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


def _answers(host: str, port: int) -> bool:
    """Whether a connection opens in time. In a thread, because looking a name up has no timeout of its own."""

    def connect() -> None:
        socket.create_connection((host, port), timeout=PATIENCE_S).close()

    pool = ThreadPoolExecutor(max_workers=1)
    try:
        pool.submit(connect).result(timeout=PATIENCE_S)
    except (OSError, FutureTimeout):
        return False
    finally:
        pool.shutdown(wait=False)
    return True
