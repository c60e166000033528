"""The known VPs, and those that this machine enables."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Profile:
    """Constant properties of a VP."""

    vp_id: str
    runtime_id: str
    metadata: dict[str, str]
    workspace_root: Path


def enabled_ids() -> list[str]:
    """Ids from the environment, by default both."""
    names = [name.strip() for name in os.environ.get("UA_VP_ENABLED_IDS", "").split(",") if name.strip()]
    return names or ["vp.coder.primary", "vp.general.primary"]


def profile(vp_id: str) -> Profile:
    """Properties of an enabled VP. Its workspaces are below the working directory of the process."""
    base = Path("AGENT_RUN_WORKSPACES").resolve()
    known = {
        "vp.coder.primary": Profile(
            "vp.coder.primary",
            "runtime.coder.external",
            {"client_kind": "claude_code", "display_name": "CODIE"},
            base / "vp_coder_primary_external",
        ),
        "vp.general.primary": Profile(
            "vp.general.primary",
            "runtime.general.external",
            {"client_kind": "claude_generalist", "display_name": "GENERALIST"},
            base / "vp_general_primary_external",
        ),
    }
    if vp_id not in known or vp_id not in enabled_ids():
        raise ValueError(f"VP not enabled: {vp_id}")
    return known[vp_id]
