"""Exit code 0 if the Ray node of this container is alive. It needs no token, and imports nothing but the standard library."""

import sys
import urllib.request


def healthy(port: int = 52365, seconds: float = 8.0) -> bool:
    """Whether the node's agent says that its raylet is alive."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/local_raylet_healthz", timeout=seconds) as answer:
            return answer.status == 200
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(0 if healthy(*map(int, sys.argv[1:])) else 1)
