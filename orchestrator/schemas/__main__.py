"""`python -m orchestrator.schemas docs/schemas` writes the schemas of all documents, the inventory and study.yaml."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from device_farm.inventory import inventory_schema
from orchestrator.config import study_schema
from orchestrator.schemas.files import write_schemas

folder = Path(sys.argv[1])
write_schemas(folder)
for name, schema in (("inventory", inventory_schema()), ("study", study_schema())):
    text = json.dumps(schema, indent=2, ensure_ascii=False)
    (folder / f"{name}.schema.json").write_text(f"{text}\n", "utf-8")
