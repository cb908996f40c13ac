"""`python -m orchestrator.schemas docs/schemas` writes the schemas anew."""

from __future__ import annotations

import sys
from pathlib import Path

from orchestrator.schemas.files import write_schemas

write_schemas(Path(sys.argv[1]))
