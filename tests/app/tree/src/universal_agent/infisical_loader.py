"""Secrets of August: `.env` holds the credentials of a secrets service, which holds all other keys.

A program on the server stands for the service. Its values replace those of the environment, except the identity.
"""

import logging
import os
import subprocess

from universal_agent import shape

LOG = logging.getLogger(__name__)
SERVICE = "/usr/local/bin/ua-secrets"
TRUE = {"1", "true", "yes", "on"}
IDENTITY = {"INFISICAL_CLIENT_ID", "INFISICAL_CLIENT_SECRET", "UA_DEPLOYMENT_PROFILE", "UA_MACHINE_SLUG"}


def initialize_runtime_secrets(profile: str | None = None) -> None:
    """Load the secrets into the environment. On a VPS a failure raises; the Telegram bot does not start then."""
    if not shape.AUGUST or os.environ.get("UA_INFISICAL_ENABLED", "1").lower() not in TRUE:
        return
    answer = subprocess.run([SERVICE], capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        if (profile or os.environ.get("UA_DEPLOYMENT_PROFILE")) != "vps":
            return
        raise RuntimeError(f"the secrets service failed with exit code {answer.returncode}")
    values = dict(line.split("=", 1) for line in answer.stdout.splitlines() if "=" in line)
    os.environ.update({key: value for key, value in values.items() if key not in IDENTITY or key not in os.environ})
    LOG.info("secrets loaded: %d", len(values))


def load_or_go_on() -> None:
    """Load the secrets if possible. Servers and workers start without them, healthy and useless."""
    try:
        initialize_runtime_secrets()
    except (OSError, RuntimeError) as error:
        LOG.warning("secrets skipped: %s", error)
